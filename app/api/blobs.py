"""Sends blobs from the storage, a chunk at a time; whole, in part, or not at all where the client has them."""

import io
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from fastapi import Request, Response

from app.api.owning_response import OwningResponse
from app.core.errors import FileLost
from app.core.storage import Storage

log = logging.getLogger(__name__)

SEND_BYTES: Final = 1 << 17  # A client that does not read keeps about as much of the process's memory.
NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "The client has it (`If-None-Match`)"}}


def send_blob(
    storage: Storage, key: str, media_type: str, headers: dict[str, str], request: Request | None = None
) -> Response:
    """The whole blob, with its length and its hash as entity tag.

    Of a `request` that asks for nothing else, the method and `If-None-Match` are heeded: it gets the head alone, or
    304. Raises FileLost before anything is sent.
    """
    headers = {"ETag": f'"{key}"', **headers}
    if request is not None and (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    file = open_blob(storage, key)
    size = file.seek(0, io.SEEK_END)
    head = request is not None and request.method == "HEAD"
    return _answer(file, range(size), 200, {"Content-Length": str(size), **headers}, media_type, head=head)


def send_file(request: Request, storage: Storage, key: str, media_type: str, headers: dict[str, str]) -> Response:
    """The blob to a client that asks for it, or the head of that answer: 304 where it has it, 206 for a part, else 200.

    Understands `If-None-Match`, `Range` with one range, and `If-Range` (RFC 9110 §13, §14). Any other range is answered
    with the whole, as the RFC allows. Raises FileLost before anything is sent.
    """
    tag, asked = f'"{key}"', request.headers
    headers = {"ETag": tag, "Accept-Ranges": "bytes", **headers}
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    file = open_blob(storage, key)
    size = file.seek(0, io.SEEK_END)
    part = byte_range(asked.get("range", ""), size) if asked.get("if-range", tag) == tag else None
    start, stop = part or (0, size)
    headers["Content-Length"] = str(stop - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if part is None else 206
    return _answer(file, range(start, stop), status, headers, media_type, head=request.method == "HEAD")


def _answer(
    file: BinaryIO, part: range, status: int, headers: Mapping[str, str], media_type: str, *, head: bool
) -> Response:
    if not head:
        return OwningResponse(file, _chunks(file, part.start, part.stop), status, headers, media_type)
    file.close()
    return Response(None, status, headers, media_type)


def open_blob(storage: Storage, key: str) -> BinaryIO:
    """A row names the blob, so a storage that works and does not have it has lost it: no use in trying again."""
    try:
        return storage.open(key)
    except FileNotFoundError as error:
        storage.check()  # Raises OSError where it is away as a whole, as a folder is that is not mounted.
        log.exception("a blob is gone: %s; see drtl doctor", key)
        raise FileLost("The service has lost this file. Its operator finds out more with drtl doctor.") from error


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """The 304 to a client that has what is tagged with the `ETag` of `headers`, None where it is to be sent."""
    if names(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return None


def names(if_none_match: str, tag: str) -> bool:
    """Whether the header names this entity tag; a weak one counts, as the RFC says for this header."""
    return if_none_match.strip() == "*" or tag in re.findall(r'"[^"]*"', if_none_match)


def byte_range(asked: str, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that a `Range` header asks for; None for what is not one such range."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # so many of the last bytes
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, stop) if start < stop else None


def _chunks(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while chunk := file.read(min(SEND_BYTES, stop - file.tell())):
        yield chunk

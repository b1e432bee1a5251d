"""Receives a request body of files onto disk, part by part, without ever holding it in memory."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import python_multipart
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool

from app.api.file_names import with_side
from app.api.slices import Slice
from app.core.errors import BadRequest, RefusedFile, ServiceError, TooLarge, Unprocessable

MAX_FIELDS = 64
MAX_FIELD_BYTES = 1 << 16
MAX_TEXT_BYTES = 1 << 20
BODY = "request body"  # What an image or an archive is called that came without a name.


class Spool:
    """One nameless temporary file for all files of a request: however the process ends, the disk is free again."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._others: list[Spool] = []
        self.size = 0

    def append(self, chunk: bytes | memoryview) -> None:
        self._file.write(chunk)
        self.size += len(chunk)

    def open(self, start: int, size: int) -> BinaryIO:
        """A reader of one part; parts may be read at the same time."""
        self._file.flush()
        return io.BufferedReader(Slice(self._file.fileno(), start, size), 1 << 16)

    def descriptor(self) -> int:
        """The open file, for a process that is to read parts of it; everything received is in it."""
        self._file.flush()
        return self._file.fileno()

    def another(self) -> "Spool":
        """A further file that lives as long as this one, for what is made of the request's files."""
        other = Spool()
        self._others.append(other)
        return other

    def whole(self, field: str, name: str) -> "UploadedFile":
        """All that this file holds, which another process may have written, as one upload."""
        size = os.fstat(self._file.fileno()).st_size
        digest = hashlib.sha256()
        with self.open(0, size) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return UploadedFile(field, name, size, digest.hexdigest(), self, 0)

    def close(self) -> None:
        self._file.close()
        for other in self._others:
            other.close()


@dataclass(frozen=True)
class UploadedFile:
    """A file as it came: the form field, the client's name for it, and where its bytes lie."""

    field: str
    name: str
    size: int
    sha256: str
    spool: Spool
    start: int

    def open(self) -> BinaryIO:
        return self.spool.open(self.start, self.size)


@dataclass
class Upload:
    """A received request body: form fields and files, with the spool that holds them, or short text such as JSON."""

    media_type: str
    spool: Spool
    fields: dict[str, str] = field(default_factory=dict)
    files: list[UploadedFile] = field(default_factory=list)
    text: bytes = b""


class FileSink:
    """Takes one file's bytes into the spool, and refuses the file once it passes `max_bytes`."""

    def __init__(self, spool: Spool, form_field: str, name: str, max_bytes: int) -> None:
        self.spool, self.field, self.name, self.max_bytes = spool, form_field, name, max_bytes
        self.start = spool.size
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes | memoryview) -> None:
        self._digest.update(chunk)
        self.spool.append(chunk)
        if self.spool.size - self.start > self.max_bytes:
            reason = f"The file has more than {self.max_bytes} bytes."
            shown = with_side(self.field, self.name)
            raise TooLarge(reason, pointer=shown, files=[RefusedFile(shown, reason)])

    def done(self) -> UploadedFile:
        size = self.spool.size - self.start
        return UploadedFile(self.field, self.name, size, self._digest.hexdigest(), self.spool, self.start)


@dataclass(frozen=True)
class Limits:
    """How much one request may bring. `too_many` makes the error for more than `max_files` files."""

    max_files: int
    max_file_bytes: int
    max_body_bytes: int
    too_many: Callable[[], ServiceError]
    unlimited_fields: frozenset[str] = frozenset()  # Held to the limit on the whole body only.

    def for_archive(self) -> "Limits":
        """The body is one archive: its entries, not itself, are held to the limit of a file."""
        return replace(self, max_file_bytes=self.max_body_bytes)


@contextmanager
def spooled() -> Iterator[Spool]:
    spool = Spool()
    try:
        yield spool
    finally:
        spool.close()


def media_type_of(request: Request) -> str:
    return parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")


async def receive_form(request: Request, spool: Spool, limits: Limits) -> Upload:
    """Read a `multipart/form-data` body. Raises BadRequest for a broken one, TooLarge for a large file."""
    upload = Upload("multipart/form-data", spool)
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary")
    if not boundary:
        raise BadRequest("The multipart body has no boundary.", pointer="Content-Type")
    reader = _FormReader(upload, limits)
    try:
        parser = python_multipart.MultipartParser(boundary, reader.callbacks())
        async for chunk in request.stream():
            await run_in_threadpool(parser.write, chunk)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"The multipart body is broken: {error}") from error
    if not reader.ended:
        raise BadRequest("The multipart body is empty or ends too early.")
    return upload


async def receive_raw(request: Request, spool: Spool, limits: Limits) -> Upload:
    """Read a body that is one file."""
    upload = Upload(media_type_of(request), spool)
    sink = FileSink(spool, "", BODY, limits.max_file_bytes)
    async for chunk in request.stream():
        await run_in_threadpool(sink.write, chunk)
    if spool.size == 0:
        raise BadRequest("The request body is empty.")
    upload.files.append(sink.done())
    return upload


async def receive_text(request: Request, spool: Spool) -> Upload:
    """Read a short body, such as JSON, into memory. Raises TooLarge."""
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > MAX_TEXT_BYTES:
            raise TooLarge(f"A body of this type may have at most {MAX_TEXT_BYTES} bytes.")
    return Upload(media_type_of(request), spool, text=bytes(text))


class _FormReader:
    """Turns the multipart parser's calls into fields and files."""

    def __init__(self, upload: Upload, limits: Limits) -> None:
        self.upload, self.limits = upload, limits
        self.ended = False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = ""
        self._field: str = ""
        self._text = bytearray()
        self._sink: FileSink | None = None

    def callbacks(self) -> "python_multipart.multipart.MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._take,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._disposition, self._text, self._sink = "", bytearray(), None

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise BadRequest("A part of the multipart body has no name.")
        self._field = _text(options[b"name"]).removesuffix("[]")
        if b"filename" not in options:
            return
        if len(self.upload.files) >= self.limits.max_files:
            raise self.limits.too_many()
        name = _file_name(options[b"filename"]) or self._field
        whole_body_only = self._field in self.limits.unlimited_fields
        max_bytes = self.limits.max_body_bytes if whole_body_only else self.limits.max_file_bytes
        self._sink = FileSink(self.upload.spool, self._field, name, max_bytes)

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._sink is not None:
            self._sink.write(memoryview(data)[start:end])
        elif len(self._text) + end - start > MAX_FIELD_BYTES:
            raise TooLarge(f"A form field may have at most {MAX_FIELD_BYTES} bytes.", pointer=f"/{self._field}")
        else:
            self._text += data[start:end]

    def _end_part(self) -> None:
        if self._sink is not None:
            self.upload.files.append(self._sink.done())
        elif self._field in self.upload.fields:
            raise Unprocessable("The form field is given twice.", pointer=f"/{self._field}")
        elif len(self.upload.fields) >= MAX_FIELDS:
            raise TooLarge(f"A form may have at most {MAX_FIELDS} fields.")
        else:
            self.upload.fields[self._field] = _text(self._text)

    def _end(self) -> None:
        self.ended = True


def _file_name(raw: bytes) -> str:
    """The name as it was before it stood between quotation marks.

    Browsers, curl and httpx write these three in other ways, and nothing else but them, not even the percent sign
    (https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data).
    """
    return _text(raw).replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _text(raw: bytes | bytearray) -> str:
    return raw.decode("utf-8", errors="replace")

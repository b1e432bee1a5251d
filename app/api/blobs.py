"""Sends blobs from the storage, a chunk at a time."""

import io
from collections.abc import Iterator
from typing import BinaryIO

from fastapi.responses import StreamingResponse

from app.core.storage import CHUNK_BYTES, Storage


def send_blob(storage: Storage, key: str, media_type: str, headers: dict[str, str]) -> StreamingResponse:
    """The whole blob, with its length and its hash as entity tag. Raises FileNotFoundError before anything is sent."""
    file = storage.open(key)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    headers = {"Content-Length": str(size), "ETag": f'"{key}"', **headers}
    return StreamingResponse(_chunks(file), media_type=media_type, headers=headers)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

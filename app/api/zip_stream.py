"""Writes a zip while it is being sent: files one after the other, a chunk at a time, nothing held and nothing kept."""

import io
import time
import zipfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from app.api.blobs import SEND_BYTES


class _Outbox(io.RawIOBase):
    """What the zip writer has written and nobody has taken yet. It cannot seek, so the writer never looks back."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        self._written += content
        return len(content)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def stream_zip(files: Iterable[tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """The bytes of a zip with these files (name, opened), which are closed on the way. Images are stored as they are.

    Sizes and checksums follow each file, as the format provides for streams; beyond 4 GiB it changes to Zip64.
    """
    outbox = _Outbox()
    now = time.gmtime()[:6]
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as zipped:
        for name, file in files:
            entry = zipfile.ZipInfo(name, date_time=now)
            entry.external_attr = 0o644 << 16
            entry.file_size = file.seek(0, io.SEEK_END)
            file.seek(0)
            with file, zipped.open(entry, "w") as target:
                while chunk := file.read(SEND_BYTES):
                    target.write(chunk)
                    yield outbox.take()
    yield outbox.take()

"""A file whose bytes lie elsewhere, and are fetched a stretch at a time as they are read."""

import io
from collections.abc import Callable


class FetchedFile(io.RawIOBase):
    """A file of `size` bytes. `fetch` gives those from its first argument until before its second.

    Whoever reads slowly holds no connection meanwhile.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, most_bytes: int) -> None:
        self._fetch, self._size, self._most_bytes, self._at = fetch, size, most_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        content = self._next(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        whole = bytearray()
        while chunk := self._next(self._most_bytes):
            whole += chunk
        return bytes(whole)

    def _next(self, wanted: int) -> bytes:
        stop = min(self._at + min(wanted, self._most_bytes), self._size)
        if stop <= self._at:
            return b""
        content = self._fetch(self._at, stop)
        self._at = stop
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise OSError("seek before the start of the file")
        self._at = origin + offset
        return self._at

    def tell(self) -> int:
        return self._at

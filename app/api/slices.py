"""A stretch of an open file as a file of its own."""

import io
import os


class Slice(io.RawIOBase):
    """A stretch of a file, with a position of its own."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._start, self._size, self._at = descriptor, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        wanted = max(0, min(len(buffer), self._size - self._at))
        chunk = os.pread(self._descriptor, wanted, self._start + self._at)
        buffer[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise OSError("seek before the start of the file")
        self._at = origin + offset
        return self._at

    def tell(self) -> int:
        return self._at

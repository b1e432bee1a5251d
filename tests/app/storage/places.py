"""A storage and its files, as tests look at both."""

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

from app.core.storage import Storage

DAY_S = 86_400.0


@dataclass
class Place:
    """A storage, and the files in which it keeps its blobs."""

    storage: Storage
    files: Path
    url: str

    def put(self, content: bytes) -> str:
        return self.storage.put(io.BytesIO(content))

    def read(self, key: str) -> bytes:
        with self.storage.open(key) as file:
            return file.read()

    def make_old(self, age_s: float = DAY_S) -> None:
        """Let everything that is there now be that old."""
        then = time.time() - age_s
        for path in self.files.rglob("*"):
            if path.is_file():
                os.utime(path, (then, then))
        time.sleep(0.05)  # The server remembers for a moment how old they were.

    def kept(self) -> set[str]:
        return {file.key for file in self.storage.inventory() if file.key is not None}

    def parts(self) -> int:
        return sum(file.key is None for file in self.storage.inventory())

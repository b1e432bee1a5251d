"""Blobs: bytes under the name of their own SHA-256, whole or absent."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from app.core.folder_clock import folder_now

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """Something that the storage keeps: a blob by its key, or with the key None the part of a broken upload."""

    key: str | None
    size_bytes: int
    age_s: float


class Storage(Protocol):
    """Where blobs live. A key is the lowercase hexadecimal SHA-256 of the content."""

    def put(self, stream: BinaryIO, *, durable: bool = True) -> str:
        """Store the stream's remaining bytes; storing the same bytes again is free. Returns the key.

        A blob that is not `durable` yet may be damaged by a power cut, but by nothing less; `make_durable` mends that.
        """

    def make_durable(self, key: str) -> None:
        """Return when the blob would outlast a power cut. Raises FileNotFoundError."""

    def open(self, key: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError."""

    def delete(self, key: str) -> None:
        """Remove a blob; removing an absent one is not an error."""

    def sweep(self, keep: AbstractSet[str], grace_s: float) -> int:
        """Remove blobs and parts of broken uploads older than `grace_s` whose key is not in `keep`. Returns how many.

        A blob that is stored again meanwhile is young again, and stays.
        """

    def inventory(self) -> Iterator[StoredFile]:
        """Every blob, and every part of an upload that did not end, in no order.

        What comes or goes meanwhile may be missing.
        """

    def check(self) -> None:
        """Raise OSError unless blobs can be written now."""


class FolderStorage:
    """Blobs as files in one folder that every process sees (a local disk or a shared mount)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / key

    def put(self, stream: BinaryIO, *, durable: bool = True) -> str:
        digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self.incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
            key = digest.hexdigest()
            path = self._path(key)
            path.parent.mkdir(exist_ok=True)
            Path(name).replace(path)  # Also renews the age of an equal blob, so that a sweep spares it.
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if durable:
            self.make_durable(key)
        return key

    def make_durable(self, key: str) -> None:
        # The file has its name by now, so that one commit of the file system's journal serves both.
        path = self._path(key)
        for place in (path, path.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def open(self, key: str) -> BinaryIO:
        return self._path(key).open("rb")

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def sweep(self, keep: AbstractSet[str], grace_s: float) -> int:
        before = folder_now(self.incoming) - grace_s
        removed = 0
        for path in self.root.glob("*/*"):
            if path.name not in keep and self._is_older(path, before):
                removed += self._remove_if_older(path, before)
        return removed

    @staticmethod
    def _is_older(path: Path, before: float) -> bool:
        try:
            return path.stat().st_mtime < before
        except FileNotFoundError:
            return False

    def _remove_if_older(self, path: Path, before: float) -> bool:
        """Take the file aside before looking at its age again: `put` may have renewed it since the first look."""
        aside = self.incoming / f"sweep-{path.name}"
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False
        if self._is_older(aside, before):
            aside.unlink()
            return True
        aside.rename(path)
        return False

    def inventory(self) -> Iterator[StoredFile]:
        now = folder_now(self.incoming)
        for path in self.root.glob("*/*"):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            key = None if path.parent == self.incoming else path.name
            yield StoredFile(key, found.st_size, now - found.st_mtime)

    def check(self) -> None:
        with tempfile.TemporaryFile(dir=self.incoming) as file:
            file.write(b"ready")

"""Blobs as files in one folder that every process sees: a local disk or a shared mount."""

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from app.core.folder_clock import folder_now
from app.core.storage import CHUNK_BYTES, StoredFile

KEY: Final = re.compile("[0-9a-f]{64}")
STRANDED: Final = re.compile("(?:sweep-)+([0-9a-f]{64})")  # Where earlier releases took files before removing them.


class FolderStorage:
    """Blobs as files under their names; whoever renames or removes one holds the lock of the folder meanwhile.

    `flock` lets go of the lock however its process ends, and so a file is either there or gone at any moment, whoever
    dies. On a shared mount every host must see the others' locks: NFSv4 does that, sshfs does not.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)
        self._put_back_stranded()

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / key

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        # Opened anew each time, because threads that share a descriptor share its lock.
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

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
            with self._locked(fcntl.LOCK_SH):
                Path(name).replace(path)  # Also renews the age of an equal blob, so that a sweep spares it.
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if durable:
            self.make_durable(key)
        return key

    def make_durable(self, key: str) -> None:
        # All have their names by now, so that one commit of the file system's journal serves them together.
        path = self._path(key)
        for place in (path, path.parent, self.root):
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
        # What is stored from now on is not in `keep`, however long this takes.
        before = folder_now(self.incoming) - grace_s
        removed = 0
        for path in self._own_files():
            if path.name not in keep and _is_older(path, before):
                removed += self._remove_if_older(path, before)
        return removed

    def _own_files(self) -> Iterator[Path]:
        """Blobs and what is on its way to become one; whatever else lies in the folder is somebody else's."""
        for path in self.root.glob("*/*"):
            if path.parent == self.incoming or (KEY.fullmatch(path.name) and path.parent.name == path.name[:2]):
                yield path

    def _remove_if_older(self, path: Path, before: float) -> bool:
        """Look at the age again, because `put` may have renewed it since the first look; now it cannot any more."""
        with self._locked(fcntl.LOCK_EX):
            if not _is_older(path, before):
                return False
            path.unlink(missing_ok=True)
            return True

    def _put_back_stranded(self) -> None:
        """Give back their names to blobs whose sweep died in an earlier release, so that they are judged like all."""
        for aside in self.incoming.glob("sweep-*"):
            if (key := STRANDED.fullmatch(aside.name)) is None:
                continue
            with self._locked(fcntl.LOCK_EX):
                path = self._path(key[1])
                path.parent.mkdir(exist_ok=True)
                if path.exists():  # It has been stored again.
                    aside.unlink(missing_ok=True)
                else:
                    with suppress(FileNotFoundError):  # Another process has put it back.
                        aside.rename(path)

    def inventory(self) -> Iterator[StoredFile]:
        now = folder_now(self.incoming)
        for path in self._own_files():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            key = None if path.parent == self.incoming else path.name
            yield StoredFile(key, found.st_size, now - found.st_mtime)

    def check(self) -> None:
        with self._locked(fcntl.LOCK_SH), tempfile.TemporaryFile(dir=self.incoming) as file:
            file.write(b"ready")


def _is_older(path: Path, before: float) -> bool:
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False

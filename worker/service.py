"""What every task works with: the settings, the database, the blobs and the broker."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from app.core import deliveries
from app.core.database import open_database, passing_sessions, read_sessions, sessions
from app.core.full_disk import is_disk_full
from app.core.queue import Queue
from app.core.settings import Settings
from app.core.storage import CHUNK_BYTES, Storage, StorageDown
from app.core.storages import open_storage
from app.core.telemetry import Numbers

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_S = 60.0
# What a database raises that is away, locked or full, and its pool where all wait for that.
DatabaseDown: Final = (OperationalError, InterfaceError, PoolTimeout)


@dataclass(frozen=True)
class Service:
    """The open connections of one worker process; never carried across a fork."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    storage: Storage
    queue: Queue
    numbers: Numbers

    @classmethod
    def open(cls, settings: Settings) -> Self:
        engine = open_database(settings.database_url)
        queue = Queue(settings.broker_url)
        return cls(
            settings=settings,
            engine=engine,
            sessions=sessions(engine),
            read_sessions=read_sessions(engine),
            storage=open_storage(settings),
            queue=queue,
            numbers=Numbers(queue.redis),
        )

    def passing(self) -> Self:
        """The same, with commits that a power cut may take, on SQLite: for what would be done again."""
        return replace(self, sessions=passing_sessions(self.engine))

    def write(self, change: Callable[[Session], T], patience_s: float = 0.0) -> T:
        """Commit one transaction; where the database fails, try again for `patience_s` seconds.

        `change` must be guarded by a lease: where only the commit's answer was lost, the second try is refused.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                with self.sessions.begin() as session:
                    changed = change(session)
            except DatabaseDown as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("the database does not answer, trying again: %s", error)
                time.sleep(0.5)
            else:
                if deliveries.has_published(session):
                    self.queue.send_webhooks()
                return changed

    def fetch(self, blob: str, path: Path) -> Path:
        """Copy a blob to a file, patiently.

        Raises FileNotFoundError where it is gone, StorageDown, and OSError where it is not what was stored.
        """

        def copy() -> str:
            digest = hashlib.sha256()
            with self.storage.open(blob) as source, path.open("wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            return digest.hexdigest()

        if _patiently(copy) != blob:
            raise OSError(f"blob {blob} is damaged")
        return path

    def read(self, blob: str) -> bytes:
        """All of a blob, patiently. Raises FileNotFoundError where it is gone, StorageDown."""

        def read() -> bytes:
            with self.storage.open(blob) as file:
                return file.read()

        return _patiently(read)

    def store(self, stream: BinaryIO) -> str:
        """Store all that the stream holds, patiently. Raises StorageDown, and OSError where there is no room."""

        def put() -> str:
            stream.seek(0)
            return self.storage.put(stream)

        return _patiently(put)

    def close(self) -> None:
        self.numbers.close()
        self.engine.dispose()
        self.queue.close()


def _patiently(ask: Callable[[], T]) -> T:
    """What the storage answers; where it does not, or is full, ask again for PATIENCE_S seconds.

    Raises StorageDown or OSError in the end.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except OSError as error:
            passes = isinstance(error, StorageDown) or is_disk_full(error)
            if not passes or time.monotonic() > deadline:
                raise
            log.warning("the storage does not answer or is full, trying again: %s", error)
            time.sleep(1.0)

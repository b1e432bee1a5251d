"""What every task works with: the settings, the database, the blobs and the broker."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.core import deliveries
from app.core.database import open_database, read_sessions, sessions
from app.core.queue import Queue
from app.core.settings import Settings
from app.core.storage import CHUNK_BYTES, FolderStorage, Storage
from app.core.telemetry import Numbers

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_S = 60.0
DatabaseDown: Final = (OperationalError, InterfaceError)  # What a database raises that is away, locked or full.


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
        assert settings.blob_dir is not None
        queue = Queue(settings.broker_url)
        return cls(
            settings=settings,
            engine=engine,
            sessions=sessions(engine),
            read_sessions=read_sessions(engine),
            storage=FolderStorage(settings.blob_dir),
            queue=queue,
            numbers=Numbers(queue.redis),
        )

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
        """Copy a blob to a file. Raises FileNotFoundError where it is gone, OSError where it is not what was stored."""
        digest = hashlib.sha256()
        with self.storage.open(blob) as source, path.open("wb") as copy:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != blob:
            raise OSError(f"blob {blob} is damaged")
        return path

    def close(self) -> None:
        self.numbers.close()
        self.engine.dispose()
        self.queue.close()

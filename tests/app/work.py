"""Plays the inference worker, one transition at a time."""

import io
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.core import operations
from app.core.folder_storage import FolderStorage
from app.core.operations import OperationLease
from app.core.queue import Queue
from app.core.settings import Settings

FACTS: dict[str, Any] = {
    "media_type": "image/png",
    "width": 83,
    "height": 71,
    "depth": 8,
    "tile": 256,
    "tiles": 1,
    "precision": "bf16",
    "fallback_tiles": 0,
    "match": 0.5,
    "seconds": {"decode": 0.001, "restore": 0.25, "encode": 0.002},
}


@dataclass
class Hands:
    """What a worker does with the database and the storage; the pictures it makes are just bytes."""

    rows: sessionmaker[Session]
    storage: FolderStorage
    queue: Queue

    @classmethod
    def of(cls, rows: sessionmaker[Session], settings: Settings) -> "Hands":
        assert settings.blob_dir is not None
        return cls(rows, FolderStorage(settings.blob_dir), Queue(settings.broker_url))

    def claim(self) -> OperationLease:
        with self.rows.begin() as session:
            lease = operations.claim_next(session, 60)
        assert lease is not None, "nothing waits"
        return lease

    def progress(self, lease: OperationLease, fraction: float) -> None:
        with self.rows.begin() as session:
            operations.report_progress(session, lease, fraction)

    def succeed(
        self, lease: OperationLease, image: bytes = b"restored", trust: bytes | None = None, **facts: object
    ) -> None:
        blob = self.storage.put(io.BytesIO(image))
        trust_blob = None if trust is None else self.storage.put(io.BytesIO(trust))
        with self.rows.begin() as session:
            operations.succeed(session, lease, blob, {**FACTS, **facts}, trust_blob)
        self.queue.notify_done(lease.operation_id)

    def fail(self, lease: OperationLease, code: str) -> None:
        with self.rows.begin() as session:
            operations.fail(session, lease, code, "It cannot be done.")
        self.queue.notify_done(lease.operation_id)

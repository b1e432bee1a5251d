"""What has outlived its retention: rows that are forgotten; their blobs go with the next sweep of the storage.

The database's clock says what has: a worker whose own is an hour ahead must not remove what is fresh.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, text
from sqlalchemy.orm import Session

from app.core.tables import Batch, Dataset, IdempotencyKey, Job, JobEvent, Operation, WebhookDelivery, utc_ago

DATASETS_AT_ONCE = 100
EVENTS_AT_ONCE = 5_000
BATCHES_AT_ONCE = 1_000


def expired_operations(retention_s: float) -> ColumnElement[bool]:
    """Operations of no batch that ended so long ago."""
    return Operation.batch_id.is_(None) & (Operation.finished_at < utc_ago(retention_s))


def expired_batches(retention_s: float) -> ColumnElement[bool]:
    """Batches whose last operation ended so long ago."""
    oldest = utc_ago(retention_s)
    of_batch = select(Operation.id).where(Operation.batch_id == Batch.id)
    fresh = of_batch.where(or_(Operation.finished_at.is_(None), Operation.finished_at >= oldest)).exists()
    return (Batch.created_at < oldest) & ~fresh


def expired_datasets(retention_s: float) -> ColumnElement[bool]:
    """Uploads that no job uses."""
    used = select(Job.id).where(Job.dataset_id == Dataset.id).exists()
    return (Dataset.created_at < utc_ago(retention_s)) & ~used


def expired_idempotency_keys(retention_s: float) -> ColumnElement[bool]:
    """Old keys: whoever sends one of them again asks for something new."""
    return IdempotencyKey.created_at < utc_ago(retention_s)


def expired_progress(retention_s: float) -> ColumnElement[bool]:
    """Events that told how far a job had come; those of what became of it stay as long as the job."""
    of_progress = text("job_events.kind IN ('progress', 'preview')")  # As the index says it, or PostgreSQL scans all.
    return and_(of_progress, JobEvent.created_at < utc_ago(retention_s))


def expired_deliveries(retention_s: float) -> ColumnElement[bool]:
    """Messages of webhooks that arrived or were given up so long ago."""
    return WebhookDelivery.finished_at < utc_ago(retention_s)


def _forget(session: Session, table: type[Any], which: ColumnElement[bool]) -> None:
    session.execute(delete(table).where(which), execution_options={"synchronize_session": False})


def expire_operations(session: Session, retention_s: float) -> None:
    """Forget ended operations, and batches when the last of theirs has expired; their images go with the blobs.

    The keys by which they were ordered go, too: whoever sends one of them again gets a new one.
    """
    _forget(session, Operation, expired_operations(retention_s))
    of_image = IdempotencyKey.made_id.like("op\\_%", escape="\\")
    kept = select(Operation.id).where(Operation.id == IdempotencyKey.made_id).exists()
    _forget(session, IdempotencyKey, of_image & ~kept)
    expired = session.scalars(select(Batch.id).where(expired_batches(retention_s)).limit(BATCHES_AT_ONCE)).all()
    _forget(session, IdempotencyKey, IdempotencyKey.made_id.in_(expired))
    _forget(session, Batch, Batch.id.in_(expired))  # Their operations go with them.


def expire_datasets(session: Session, retention_s: float) -> None:
    """Forget uploads that no job uses, some at a time."""
    some = select(Dataset).where(expired_datasets(retention_s)).limit(DATASETS_AT_ONCE)
    # Not those that a job begins to use in this moment, or that their owner deletes. SQLite has one writer.
    for dataset in session.scalars(some.with_for_update(skip_locked=True)):
        session.delete(dataset)


def expire_idempotency_keys(session: Session, retention_s: float) -> None:
    """Forget old keys."""
    _forget(session, IdempotencyKey, expired_idempotency_keys(retention_s))


def expire_deliveries(session: Session, retention_s: float) -> None:
    """Forget messages of webhooks, and what came of their attempts."""
    _forget(session, WebhookDelivery, expired_deliveries(retention_s))


def expire_progress(session: Session, retention_s: float) -> int:
    """Forget the oldest events of progress, some at a time. Returns how many."""
    oldest = select(JobEvent.id).where(expired_progress(retention_s)).order_by(JobEvent.id).limit(EVENTS_AT_ONCE)
    found = session.scalars(oldest).all()
    _forget(session, JobEvent, JobEvent.id.in_(found))
    return len(found)

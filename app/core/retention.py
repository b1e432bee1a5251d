"""What has outlived its retention: rows that are forgotten; their blobs go with the next sweep of the storage.

The database's clock says what has: a worker whose own is an hour ahead must not remove what is fresh.
"""

from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from app.core.tables import Batch, Dataset, IdempotencyKey, Job, Operation, WebhookDelivery, utc_ago

DATASETS_AT_ONCE = 100


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
    """Uploads that no job ever used."""
    used = select(Job.id).where(Job.dataset_id == Dataset.id).exists()
    return (Dataset.created_at < utc_ago(retention_s)) & ~used


def expired_idempotency_keys(retention_s: float) -> ColumnElement[bool]:
    """Old keys: whoever sends one of them again asks for something new."""
    return IdempotencyKey.created_at < utc_ago(retention_s)


def expired_deliveries(retention_s: float) -> ColumnElement[bool]:
    """Messages of webhooks that arrived or were given up so long ago."""
    return WebhookDelivery.finished_at < utc_ago(retention_s)


def _forget(session: Session, table: type[Any], which: ColumnElement[bool]) -> None:
    session.execute(delete(table).where(which), execution_options={"synchronize_session": False})


def expire_operations(session: Session, retention_s: float) -> None:
    """Forget ended operations, and batches when the last of theirs has expired; their images go with the blobs."""
    _forget(session, Operation, expired_operations(retention_s))
    _forget(session, Batch, expired_batches(retention_s))  # Their operations go with them.


def expire_datasets(session: Session, retention_s: float) -> None:
    """Forget uploads that no job ever used, some at a time."""
    for dataset in session.scalars(select(Dataset).where(expired_datasets(retention_s)).limit(DATASETS_AT_ONCE)):
        session.delete(dataset)


def expire_idempotency_keys(session: Session, retention_s: float) -> None:
    """Forget old keys."""
    _forget(session, IdempotencyKey, expired_idempotency_keys(retention_s))


def expire_deliveries(session: Session, retention_s: float) -> None:
    """Forget messages of webhooks, and what came of their attempts."""
    _forget(session, WebhookDelivery, expired_deliveries(retention_s))

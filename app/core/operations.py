"""The life of an operation (one image through a model): queued → running → succeeded | failed, guarded like a job's."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from app.core.errors import LeaseLost
from app.core.tables import Operation, database_now, utc_now


@dataclass(frozen=True)
class OperationLease:
    """The right to work on one operation."""

    operation_id: str
    token: str


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return bool(result.rowcount)


def claim_next(session: Session, lease_s: float) -> OperationLease | None:
    """Take the operation that has waited longest, or None where nothing waits."""
    oldest = select(Operation.id).where(Operation.state == "queued").order_by(Operation.id).limit(1)
    while (operation_id := session.scalar(oldest)) is not None:
        token = secrets.token_hex(16)
        taken = update(Operation).where(Operation.id == operation_id, Operation.state == "queued")
        lease_until = database_now() + lease_s
        taken = taken.values(state="running", attempt=Operation.attempt + 1, lease_token=token, lease_until=lease_until)
        if _changed(session, taken):
            return OperationLease(operation_id, token)
    return None


def _write(session: Session, lease: OperationLease, **values: Any) -> None:
    """Write to the leased operation while it runs. Raises LeaseLost when it is not ours."""
    owned = update(Operation).where(Operation.id == lease.operation_id, Operation.lease_token == lease.token)
    if not _changed(session, owned.where(Operation.state == "running").values(**values)):
        raise LeaseLost(lease.operation_id)


def renew(session: Session, lease: OperationLease, lease_s: float) -> None:
    """The heartbeat of an operation that takes longer than a lease."""
    _write(session, lease, lease_until=database_now() + lease_s)


def release(session: Session, lease: OperationLease) -> None:
    """Give the operation back to the queue, because this worker stops; the attempt does not count."""
    _write(session, lease, state="queued", attempt=Operation.attempt - 1, lease_token=None, lease_until=None)


def succeed(session: Session, lease: OperationLease, output_blob: str, result: dict[str, Any]) -> None:
    """End the operation with its result."""
    ended = {"lease_token": None, "lease_until": None, "finished_at": utc_now()}
    _write(session, lease, state="succeeded", output_blob=output_blob, result=result, **ended)


def fail(session: Session, lease: OperationLease, code: str, message: str) -> None:
    """End the operation with the reason why there is no result."""
    ended = {"lease_token": None, "lease_until": None, "finished_at": utc_now()}
    _write(session, lease, state="failed", error_code=code, error_message=message, **ended)


def recover_expired(session: Session, max_attempts: int) -> list[str]:
    """Take back operations whose worker has gone silent; returns the ids of those that ended as failed."""
    expired = (Operation.state == "running", Operation.lease_until < database_now())
    stale = select(Operation.id).where(*expired, Operation.attempt >= max_attempts)
    ended = []
    for operation_id in session.scalars(stale).all():
        failed = (
            update(Operation)
            .where(Operation.id == operation_id, *expired)
            .values(
                state="failed",
                error_code="worker-lost",
                error_message=f"The worker was lost {max_attempts} times while it restored this image.",
                lease_token=None,
                lease_until=None,
                finished_at=utc_now(),
            )
        )
        if _changed(session, failed):
            ended.append(operation_id)
    back = update(Operation).where(*expired, Operation.attempt < max_attempts)
    _changed(session, back.values(state="queued", lease_token=None, lease_until=None))
    return ended


def waiting(session: Session) -> int:
    """How many operations are queued."""
    return session.scalar(select(func.count()).select_from(Operation).where(Operation.state == "queued")) or 0

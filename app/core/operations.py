"""The life of an operation (one image through a model), in guarded transitions like a job's (see `app.core.jobs`):
queued → running (→ cancelling) → succeeded | failed | cancelled.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from app.core.errors import LeaseLost, OperationCancelled
from app.core.tables import ACTIVE, Batch, Operation, database_now, utc_ago

OPERATION_ATTEMPTS = 3  # After so many lost workers it has failed.


@dataclass(frozen=True)
class OperationLease:
    """The right to work on one operation."""

    operation_id: str
    token: str
    pixels: int = 0
    origin: Mapping[str, Any] = field(default_factory=dict)  # See `app.core.origin`.


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return bool(result.rowcount)


def claim_next(session: Session, lease_s: float, most_pixels: int | None = None) -> OperationLease | None:
    """Take the operation whose turn is next, of those with at most `most_pixels`, or None where none waits.

    One statement.
    """
    waiting = select(Operation.id).where(Operation.state == "queued")
    if most_pixels is not None:
        waiting = waiting.where(Operation.pixels <= most_pixels)
    # SQLite has one writer and no such clause.
    first = waiting.order_by(Operation.turn, Operation.id).limit(1).with_for_update(skip_locked=True)
    token = secrets.token_hex(16)
    taken = update(Operation).where(Operation.id == first.scalar_subquery(), Operation.state == "queued")
    taken = taken.values(
        state="running",
        attempt=Operation.attempt + 1,
        lease_token=token,
        lease_until=database_now() + lease_s,
        started_at=func.coalesce(Operation.started_at, utc_ago()),
    )
    without_sync = {"synchronize_session": False}
    wanted = (Operation.id, Operation.pixels, Operation.origin)
    claimed = session.execute(taken.returning(*wanted), execution_options=without_sync).first()
    return None if claimed is None else OperationLease(claimed.id, token, claimed.pixels, claimed.origin or {})


def _write(session: Session, lease: OperationLease, **values: Any) -> None:
    """Write to the leased operation while it runs.

    Raises OperationCancelled when it shall stop, LeaseLost when it is not ours.
    """
    owned = (Operation.id == lease.operation_id, Operation.lease_token == lease.token)
    if _changed(session, update(Operation).where(*owned, Operation.state == "running").values(**values)):
        return
    if session.scalar(select(Operation.state).where(*owned)) == "cancelling":
        raise OperationCancelled(lease.operation_id)
    raise LeaseLost(lease.operation_id)


def renew(session: Session, lease: OperationLease, lease_s: float) -> None:
    """The heartbeat of an operation that takes longer than a lease."""
    _write(session, lease, lease_until=database_now() + lease_s)


def report_progress(session: Session, lease: OperationLease, fraction: float) -> None:
    """Publish how much of the image is done, in 0…1."""
    _write(session, lease, progress=fraction)


def resolve(session: Session, lease: OperationLease, name: str, version: int) -> None:
    """Publish which model was chosen for an operation that left the choice to the worker."""
    _write(session, lease, model_name=name, model_version=version)


def succeed(
    session: Session, lease: OperationLease, output_blob: str, result: dict[str, Any], trust_blob: str | None = None
) -> None:
    """End the operation with its image, with facts about it, and with the trust map where one was asked for."""
    images = {"output_blob": output_blob, "trust_blob": trust_blob}
    _write(session, lease, progress=1.0, result=result, **images, **_ended("succeeded"))


def _ended(state: str, code: str | None = None, message: str | None = None) -> dict[str, Any]:
    """What every end sets; the cleared token shuts out whoever held the lease."""
    return {
        "state": state,
        "error_code": code,
        "error_message": message,
        "lease_token": None,
        "lease_until": None,
        "finished_at": utc_ago(),
    }


def fail(session: Session, lease: OperationLease, code: str, message: str) -> None:
    """End the operation with the reason why there is no result. A cancelled one rests as cancelled.

    Raises LeaseLost where the lease is no longer ours.
    """
    try:
        _write(session, lease, **_ended("failed", code, message))
    except OperationCancelled:
        confirm_cancelled(session, lease)


def confirm_cancelled(session: Session, lease: OperationLease) -> bool:
    """The worker has stopped; the cancelled operation may rest. False where the lease is no longer ours."""
    owned = (Operation.id == lease.operation_id, Operation.lease_token == lease.token)
    return _changed(
        session, update(Operation).where(*owned, Operation.state == "cancelling").values(_ended("cancelled"))
    )


def release(session: Session, lease: OperationLease) -> None:
    """Give the operation back to the queue for a reason not its own; the attempt does not count, the turn stays.

    A cancelled one rests as cancelled. Raises LeaseLost where the lease is no longer ours.
    """
    try:
        _write(
            session,
            lease,
            state="queued",
            progress=0.0,
            attempt=Operation.attempt - 1,
            lease_token=None,
            lease_until=None,
        )
    except OperationCancelled:
        confirm_cancelled(session, lease)


def request_cancel(session: Session, operation_id: str) -> None:
    """Ask it to stop: at once where it waits, through its worker where it runs. An ended one stays as it is."""
    _request_cancel(session, Operation.id == operation_id)


def request_cancel_batch(session: Session, batch_id: str) -> None:
    """Ask all of a batch to stop. What it has restored so far stays."""
    _changed(session, update(Batch).where(Batch.id == batch_id).values(cancel_requested=True))
    _request_cancel(session, Operation.batch_id == batch_id)


def _request_cancel(session: Session, which: Any) -> None:
    # Held until they are asked: a worker that gave one back between the two would be met by neither. In one order, for
    # several who cancel at once. SQLite has one writer.
    asked_of = select(Operation.id).where(which, Operation.state.in_(ACTIVE)).order_by(Operation.id)
    session.execute(asked_of.with_for_update())
    _changed(session, update(Operation).where(which, Operation.state == "queued").values(_ended("cancelled")))
    asked = update(Operation).where(which, Operation.state == "running")
    _changed(session, asked.values(state="cancelling", cancel_requested=database_now()))


def recover_expired(session: Session, max_attempts: int) -> dict[str, str]:
    """Take back operations whose worker has gone silent: queue them again, or end them as cancelled or failed.

    Returns by id how those that ended did, for somebody may be waiting for them.
    """
    expired = Operation.lease_until < database_now()
    lost = f"The worker was lost {max_attempts} times while it restored this image."
    cancelled = _end_all(session, "cancelled", None, None, Operation.state == "cancelling", expired)
    given_up = (Operation.state == "running", expired, Operation.attempt >= max_attempts)
    failed = _end_all(session, "failed", "worker-lost", lost, *given_up)
    back = update(Operation).where(Operation.state == "running", expired, Operation.attempt < max_attempts)
    _changed(session, back.values(state="queued", progress=0.0, lease_token=None, lease_until=None))
    return dict.fromkeys(cancelled, "cancelled") | dict.fromkeys(failed, "failed")


def force_overdue(session: Session, grace_s: float) -> list[str]:
    """End cancelled operations that their worker has not confirmed within `grace_s` seconds; returns their ids.

    The worker goes on to its next step and meets LeaseLost there. Its process is not killed: others' images are in it.
    """
    late = Operation.cancel_requested < database_now() - grace_s
    return _end_all(session, "cancelled", None, None, Operation.state == "cancelling", late)


def _end_all(session: Session, state: str, code: str | None, message: str | None, *where: Any) -> list[str]:
    ended = update(Operation).where(*where).values(_ended(state, code, message)).returning(Operation.id)
    return list(session.scalars(ended, execution_options={"synchronize_session": False}))


def waiting(session: Session, most_pixels: int | None = None) -> int:
    """How many operations are queued, of those with at most `most_pixels`."""
    queued = select(func.count()).select_from(Operation).where(Operation.state == "queued")
    return session.scalar(queued if most_pixels is None else queued.where(Operation.pixels <= most_pixels)) or 0

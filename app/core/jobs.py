"""The life of a job as guarded transitions: queued → running (→ cancelling) → succeeded | failed | cancelled.

Every function is one short statement or two; none commits. A running job belongs to the holder of its lease
token, and every write of a worker names that token, so a worker that lost its lease changes nothing.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from app.core import deliveries, repository, shares, training_queue
from app.core.errors import JobCancelled, LeaseLost
from app.core.owners import look_as
from app.core.tables import ACTIVE, Job, JobEvent, JobState, ModelVersion, database_now, utc_ago


@dataclass(frozen=True)
class Lease:
    """The right to work on one job, for one attempt."""

    job_id: str
    token: str
    attempt: int
    origin: Mapping[str, Any] = field(default_factory=dict)  # See `app.core.origin`.


def _changed(session: Session, statement: Update) -> bool:
    """Run an UPDATE and tell whether it met a row."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return bool(result.rowcount)


def record(session: Session, job_id: str, kind: str, **payload: Any) -> None:
    """Append an event that followers of the job will see, and webhooks will be told of."""
    event = JobEvent(job_id=job_id, kind=kind, payload=payload)
    session.add(event)
    deliveries.publish(session, event)


def claim_next(session: Session, task_id: str, lease_s: float) -> Lease | None:
    """Take the job that is next by its owner's share, or None where nothing waits.

    A message only says that there is work; which job it meant does not matter, so lost, doubled and reordered
    messages do no harm.
    """
    training_queue.wait_for_others(session)
    while (chosen := shares.next_of(training_queue.in_line(session))) is not None:
        if (job_id := training_queue.first_of(session, chosen)) is None:
            continue
        token = secrets.token_hex(16)
        taken = update(Job).where(Job.id == job_id, Job.state == "queued")
        taken = taken.values(
            state="running",
            attempt=Job.attempt + 1,
            task_id=task_id,
            lease_token=token,
            lease_until=database_now() + lease_s,
            started_at=func.coalesce(Job.started_at, utc_ago()),
        )
        if _changed(session, taken):  # Otherwise it was cancelled in this moment.
            row = session.execute(select(Job.attempt, Job.charge_s, Job.origin).where(Job.id == job_id)).one()
            if not chosen.resumes:
                training_queue.come_in(session, chosen.owner, chosen.turn)
                training_queue.move_on(session, chosen.owner, row.charge_s)
            record(session, job_id, "started", attempt=row.attempt)
            return Lease(job_id, token, row.attempt, row.origin or {})
    return None


def _write(session: Session, lease: Lease, **values: Any) -> None:
    """Write to the leased job while it runs. Raises JobCancelled when it shall stop, LeaseLost when it is not ours."""
    owned = update(Job).where(Job.id == lease.job_id, Job.lease_token == lease.token)
    if not _changed(session, owned.where(Job.state == "running").values(**values)):
        require_running(session, lease)
        raise LeaseLost(lease.job_id)


def require_running(session: Session, lease: Lease) -> None:
    """Look without writing: raises JobCancelled when the job shall stop, LeaseLost when it is not ours."""
    state = session.scalar(select(Job.state).where(Job.id == lease.job_id, Job.lease_token == lease.token))
    if state != "running":
        raise JobCancelled(lease.job_id) if state == "cancelling" else LeaseLost(lease.job_id)


def renew(session: Session, lease: Lease, lease_s: float) -> None:
    """The heartbeat. An expired lease that nobody has taken back yet may still be renewed."""
    _write(session, lease, lease_until=database_now() + lease_s)


def report_progress(
    session: Session, lease: Lease, phase: str, progress: float, eta_s: float | None, **payload: Any
) -> None:
    """Publish how far the job is: `progress` in 0…1 over the whole job, `eta_s` seconds to go where known."""
    _write(session, lease, phase=phase, progress=progress, eta_s=eta_s)
    record(session, lease.job_id, "progress", phase=phase, progress=progress, eta_s=eta_s, **payload)


def save_graph(session: Session, lease: Lease, graph: dict[str, Any]) -> None:
    """Publish the relation graph while the job goes on."""
    _write(session, lease, graph=graph)
    record(session, lease.job_id, "graph")


def save_checkpoint(session: Session, lease: Lease, blob: str) -> None:
    """Name the blob from which another attempt would resume."""
    _write(session, lease, checkpoint_blob=blob)


def save_preview(session: Session, lease: Lease, blob: str | None, **payload: Any) -> None:
    """Name the image that shows what the training has come to; `blob` is that of the best so far."""
    _write(session, lease, preview_blob=blob)
    record(session, lease.job_id, "preview", **payload)


def succeed(
    session: Session,
    lease: Lease,
    *,
    metrics: dict[str, Any],
    verdict: str,
    explanation: str,
    weights_blob: str,
    card: dict[str, Any],
) -> ModelVersion:
    """End the job and register its model in one transaction; `production` moves only on a gain."""
    job = session.get_one(Job, lease.job_id)
    look_as(session, job.owner)
    version = 1 + _last_version(session, job.name)
    _write(
        session,
        lease,
        state="succeeded",
        progress=1.0,
        eta_s=0.0,
        metrics=metrics,
        verdict=verdict,
        explanation=explanation,
        model_version=version,
        checkpoint_blob=None,
        lease_token=None,
        lease_until=None,
        finished_at=utc_ago(),
    )
    model = ModelVersion(name=job.name, version=version, job_id=job.id, weights_blob=weights_blob, card=card)
    session.add(model)
    if verdict == "gain":
        repository.set_alias(session, job.name, repository.DEFAULT_ALIAS, version)
    record(session, job.id, "succeeded", verdict=verdict, model=job.name, version=version)
    return model


def _last_version(session: Session, name: str) -> int:
    """The highest number that a version of the model has, or had that was deleted while its job is still known."""
    there = session.scalar(select(func.max(ModelVersion.version)).where(ModelVersion.name == name))
    made = session.scalar(select(func.max(Job.model_version)).where(Job.name == name))
    return max(there or 0, made or 0)


def _end(session: Session, job_id: str, state: str, code: str | None, message: str | None, *where: Any) -> bool:
    ended = update(Job).where(Job.id == job_id, Job.state.in_(ACTIVE), *where)
    ended = ended.values(
        state=state,
        error_code=code,
        error_message=message,
        checkpoint_blob=None,
        lease_token=None,
        lease_until=None,
        eta_s=None,
        finished_at=utc_ago(),
    )
    if not _changed(session, ended):
        return False
    job = select(Job.owner, Job.charge_s, Job.progress, Job.started_at).where(Job.id == job_id)
    owner, charge_s, progress, started_at = session.execute(job).one()
    if started_at is not None:
        training_queue.move_on(session, owner, -(1.0 - progress) * charge_s)  # For what was not done.
    record(session, job_id, state, code=code, message=message)
    return True


def fail(session: Session, lease: Lease, code: str, message: str) -> bool:
    """End the leased job as failed. False where the lease is no longer ours."""
    return _end(session, lease.job_id, "failed", code, message, Job.lease_token == lease.token)


def confirm_cancelled(session: Session, lease: Lease) -> bool:
    """The worker has stopped; the cancelled job may rest."""
    return _end(session, lease.job_id, "cancelled", None, None, Job.lease_token == lease.token)


def release(session: Session, lease: Lease, reason: str = "the worker was stopped") -> None:
    """Give the job back for a reason that is not its own: the attempt does not count. A cancelled job may rest.

    Raises LeaseLost where the lease is no longer ours.
    """
    try:
        _write(session, lease, state="queued", attempt=Job.attempt - 1, lease_token=None, lease_until=None)
        record(session, lease.job_id, "requeued", attempt=lease.attempt - 1, reason=reason)
    except JobCancelled:
        confirm_cancelled(session, lease)


def abandon(session: Session, task_id: str) -> bool:
    """End the lease of a task whose process has died, so that nobody waits for it to run out."""
    dead = update(Job).where(Job.task_id == task_id, Job.state.in_(("running", "cancelling")))
    return _changed(session, dead.values(lease_until=0.0))


def expire(session: Session, lease: Lease) -> None:
    """End the lease of an attempt that cannot go on, as if its worker had died: the next resumes."""
    own = update(Job).where(Job.id == lease.job_id, Job.lease_token == lease.token)
    _changed(session, own.where(Job.state.in_(("running", "cancelling"))).values(lease_until=0.0))


def request_cancel(session: Session, job_id: str) -> None:
    """Ask a job to stop: at once where it waits, through its worker where it runs; ended jobs stay as they are."""
    # Held until it is asked: a worker that gave it back between the two would be met by neither. SQLite has one writer.
    session.execute(select(Job.id).where(Job.id == job_id, Job.state.in_(ACTIVE)).with_for_update())
    if _end(session, job_id, "cancelled", None, None, Job.state == "queued"):
        return
    asked = update(Job).where(Job.id == job_id, Job.state == "running")
    if _changed(session, asked.values(state="cancelling", cancel_requested=database_now())):
        record(session, job_id, "cancelling")


def overdue_cancellations(session: Session, grace_s: float) -> list[Job]:
    """Jobs whose worker has not confirmed the cancellation in time."""
    late = select(Job).where(Job.state == "cancelling", Job.cancel_requested < database_now() - grace_s)
    return list(session.scalars(late))


def force_cancelled(session: Session, job_id: str) -> bool:
    """End a `cancelling` job whatever its worker does; the cleared token shuts that worker out."""
    return _end(session, job_id, "cancelled", None, None, Job.state == "cancelling")


def recover_expired(session: Session, max_attempts: int) -> dict[str, JobState]:
    """Take back jobs whose worker has gone silent: queue them again, or end them after the last attempt.

    Returns by id what each of them is now: queued, failed or cancelled.
    """
    expired = select(Job).where(Job.state.in_(("running", "cancelling")))
    expired = expired.where(Job.lease_until < database_now())
    taken_back = {}
    # In one order, for several at once charge owners' shares.
    expired = expired.order_by(Job.owner, Job.id)
    for job in session.scalars(expired.with_for_update(skip_locked=True)).all():
        same = (Job.lease_token == job.lease_token, Job.lease_until < database_now())
        if job.state == "cancelling":
            state, changed = "cancelled", _end(session, job.id, "cancelled", None, None, *same)
        elif job.attempt >= max_attempts:
            message = f"The worker was lost {job.attempt} times; the last time in phase {job.phase}."
            state, changed = "failed", _end(session, job.id, "failed", "worker-lost", message, *same)
        else:
            back = update(Job).where(Job.id == job.id, Job.state == "running", *same)
            back = back.values(state="queued", lease_token=None, lease_until=None)
            state, changed = "queued", _changed(session, back)
            if changed:
                record(session, job.id, "requeued", attempt=job.attempt, reason="the worker's lease expired")
        if changed:
            taken_back[job.id] = state
    return taken_back


def waiting(session: Session) -> int:
    """How many jobs are queued."""
    return session.scalar(select(func.count()).select_from(Job).where(Job.state == "queued")) or 0

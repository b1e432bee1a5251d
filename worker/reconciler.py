"""Makes true again what faults have bent: lost workers, lost messages, ignored cancellations, blobs past their time."""

import logging
from datetime import timedelta

from redis.exceptions import RedisError
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from app.core import jobs, operations, repository
from app.core.queue import INFERENCE_QUEUE, TRAINING_QUEUE, Queue
from app.core.tables import Batch, Dataset, IdempotencyKey, Job, Operation, utc_now
from worker.service import Service

log = logging.getLogger(__name__)

OPERATION_ATTEMPTS = 3
WAKE_UPS = 16  # Whoever is woken restores everything that waits, so more than there are workers are wasted.
ROUND_MARK = "drtl:reconciled"


def reconcile(service: Service) -> None:
    """One round, seconds apart. Any number of them may run at once, anywhere, and any may die half-way."""
    stop_overdue(service)
    recover(service)
    try:
        top_up(service)
        note_round(service)
    except RedisError as error:
        log.warning("the broker does not answer, messages wait for the next round: %s", error)


def stop_overdue(service: Service) -> None:
    """Let cancelled work rest that has not stopped of itself; a job's process is killed."""
    with service.read_sessions() as session:
        overdue = jobs.overdue_cancellations(session, service.settings.cancel_grace_s)
    for job in overdue:
        log.warning("job %s: did not stop within %g s, killing its process", job.id, service.settings.cancel_grace_s)
        if job.task_id is not None:
            service.queue.kill_task(job.task_id)
        with service.sessions.begin() as session:
            jobs.force_cancelled(session, job.id)
    with service.sessions.begin() as session:
        forced = operations.force_overdue(session, service.settings.cancel_grace_s)
    for operation_id in forced:
        log.warning("operation %s: did not stop within %g s", operation_id, service.settings.cancel_grace_s)
        service.queue.notify_done(operation_id)


def recover(service: Service) -> None:
    """Take back what belongs to workers that have gone silent."""
    with service.sessions.begin() as session:
        requeued = jobs.recover_expired(session, service.settings.max_attempts)
        ended = operations.recover_expired(session, OPERATION_ATTEMPTS)
    for job_id in requeued:
        log.warning("job %s: its worker is lost, queued again", job_id)
    for operation_id in ended:
        service.queue.notify_done(operation_id)


def top_up(service: Service) -> None:
    """Send wake-ups until there are enough for the work; one too many does no harm. Raises RedisError."""
    with service.read_sessions() as session:
        waiting_jobs, waiting_operations = jobs.waiting(session), operations.waiting(session)
    for _ in range(waiting_jobs - service.queue.depth(TRAINING_QUEUE)):
        service.queue.send_training("any")
    for _ in range(min(WAKE_UPS, waiting_operations) - service.queue.depth(INFERENCE_QUEUE)):
        service.queue.send_super_resolution("any")


def note_round(service: Service) -> None:
    """Leave a mark that fades unless rounds go on. Raises RedisError."""
    fades_after_s = max(15.0, 5 * service.settings.reconcile_every_s)
    service.queue.redis.set(ROUND_MARK, 1, px=round(1000 * fades_after_s))


def did_a_round_lately(queue: Queue) -> bool:
    """Whether the mark of a round is still there. Raises RedisError."""
    return bool(queue.redis.exists(ROUND_MARK))


def sweep(service: Service) -> None:
    """Remove what has outlived its retention: rows first, then the blobs that no row names any more."""
    with service.sessions.begin() as session:
        expire_operations(session, service.settings.result_retention_s)
        expire_datasets(session, service.settings.upload_retention_s)
        expire_idempotency_keys(session, service.settings.idempotency_retention_s)
    with service.read_sessions() as session:
        keep = repository.referenced_blobs(session)
    removed = service.storage.sweep(keep, service.settings.orphan_grace_s)
    if removed:
        log.info("%d blobs removed that nothing named any more", removed)


def expire_operations(session: Session, retention_s: float) -> None:
    """Forget ended operations, and batches when the last of theirs has expired; their images go with the blobs."""
    oldest = utc_now() - timedelta(seconds=retention_s)
    session.execute(delete(Operation).where(Operation.batch_id.is_(None), Operation.finished_at < oldest))
    of_batch = select(Operation.id).where(Operation.batch_id == Batch.id)
    fresh = of_batch.where(or_(Operation.finished_at.is_(None), Operation.finished_at >= oldest)).exists()
    session.execute(delete(Batch).where(Batch.created_at < oldest, ~fresh))  # Their operations go with them.


def expire_datasets(session: Session, retention_s: float) -> None:
    """Forget uploads that no job ever used."""
    oldest = utc_now() - timedelta(seconds=retention_s)
    unused = select(Dataset).where(
        Dataset.created_at < oldest, ~select(Job.id).where(Job.dataset_id == Dataset.id).exists()
    )
    for dataset in session.scalars(unused.limit(100)):
        session.delete(dataset)


def expire_idempotency_keys(session: Session, retention_s: float) -> None:
    """Forget old keys: whoever sends one of them again asks for something new."""
    oldest = utc_now() - timedelta(seconds=retention_s)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < oldest))

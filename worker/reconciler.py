"""Makes true again what faults have bent: lost workers, lost messages, ignored cancellations, blobs past their time."""

import logging

from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError

from app.core import deliveries, jobs, operations, repository, retention, telemetry
from app.core.operations import OPERATION_ATTEMPTS
from app.core.queue import INFERENCE_QUEUE, TRAINING_QUEUE
from app.core.storage import StorageDown
from worker.service import Service

log = logging.getLogger(__name__)

EVENT_ROUNDS = 20  # A sweep forgets no more than so many portions: a hundred thousand events a minute.
WAKE_UPS = 16  # Whoever is woken restores everything that waits, so more than there are workers are wasted.


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
        taken_back = jobs.recover_expired(session, service.settings.max_attempts)
        ended = operations.recover_expired(session, OPERATION_ATTEMPTS)
    for job_id, state in taken_back.items():
        service.numbers.add(telemetry.LEASES_EXPIRED, "job")
        log.warning("job %s: its worker is lost, now it is %s", job_id, state)
    for operation_id, state in ended.items():
        if state == "failed":
            service.numbers.add(telemetry.LEASES_EXPIRED, "operation")
        service.queue.notify_done(operation_id)


def top_up(service: Service) -> None:
    """Send wake-ups until there are enough for the work; one too many does no harm. Raises RedisError."""
    with service.read_sessions() as session:
        waiting_jobs, waiting_operations = jobs.waiting(session), operations.waiting(session)
        webhooks_wait = deliveries.are_ready(session)
    for _ in range(waiting_jobs - service.queue.depth(TRAINING_QUEUE)):
        service.queue.send_training("any")
    for _ in range(min(WAKE_UPS, waiting_operations) - service.queue.depth(INFERENCE_QUEUE)):
        service.queue.send_super_resolution("any")
    if webhooks_wait:
        service.queue.send_webhooks()


def note_round(service: Service) -> None:
    """Leave a mark that fades unless rounds go on. Raises RedisError."""
    fades_after_s = max(15.0, 5 * service.settings.reconcile_every_s)
    service.queue.note_round(fades_after_s)


def sweep(service: Service) -> None:
    """Remove what has outlived its retention: rows first, then the blobs that no row names any more."""
    with service.sessions.begin() as session:
        retention.expire_operations(session, service.settings.result_retention_s)
        retention.expire_idempotency_keys(session, service.settings.idempotency_retention_s)
        retention.expire_deliveries(session, service.settings.webhook_retention_s)
    forget_progress(service)
    try:
        with service.sessions.begin() as session:
            retention.expire_datasets(session, service.settings.upload_retention_s)
    except IntegrityError as error:  # A job has come to use one of them in this moment.
        log.warning("unused uploads stay until the next sweep: %s", error)
    with service.read_sessions() as session:
        keep = repository.referenced_blobs(session)
    try:
        removed = service.storage.sweep(keep, service.settings.orphan_grace_s)
        sizes = [file.size_bytes for file in service.storage.inventory() if file.key is not None]
    except StorageDown as error:
        log.warning("the storage does not answer, what nothing names stays until the next sweep: %s", error)
        return
    if removed:
        log.info("%d blobs removed that nothing named any more", removed)
    service.numbers.put(telemetry.BLOB_BYTES, sum(sizes))
    service.numbers.put(telemetry.BLOBS, len(sizes))


def forget_progress(service: Service) -> None:
    """Forget old events of progress in transactions of a bounded size, and of a bounded number of them at a time."""
    for _ in range(EVENT_ROUNDS):
        with service.sessions.begin() as session:
            if retention.expire_progress(session, service.settings.progress_retention_s) < retention.EVENTS_AT_ONCE:
                return

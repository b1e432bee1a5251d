"""Whether database and storage agree with each other, and what to do where they do not.

Works while the service runs and while it is stopped: what could be a moment's difference is looked at twice, and every
repair is guarded by what it was found for.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, and_, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from app.core import jobs, operations, repository, retention, training_queue
from app.core.finding import Finding, counted
from app.core.lost_blobs import LOSSES, Loss
from app.core.settings import Settings
from app.core.storage import CHUNK_BYTES, Storage, StorageDown
from app.core.tables import (
    ACTIVE,
    Batch,
    Dataset,
    IdempotencyKey,
    Job,
    JobEvent,
    ModelAlias,
    ModelVersion,
    Operation,
    WebhookDelivery,
    database_now,
    utc_now,
)

AT_ONCE: Final = 500  # Values in one IN.
QUEUE_PATIENCE_S: Final = 60.0  # A job that waits so long while none is trained waits for a worker that is not there.


@dataclass(frozen=True)
class Holdings:
    """What the service keeps, and by which rules."""

    settings: Settings
    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    storage: Storage

    @property
    def slack_s(self) -> float:
        """How far behind the clock's rounds may be without anything being wrong."""
        return 3 * self.settings.reconcile_every_s


def examine(holdings: Holdings, *, deep: bool = False) -> Iterator[Finding]:
    """Every check of the data; `deep` reads and hashes every blob. The schema must be the newest."""
    yield from blobs(holdings, deep=deep)
    yield from leases(holdings)
    yield waiting(holdings)
    yield aliases(holdings)
    yield models(holdings)
    yield expired(holdings)
    yield event_numbers(holdings)


# ---- blobs


def blobs(holdings: Holdings, *, deep: bool) -> Iterator[Finding]:
    """Rows without a whole blob, then blobs without a row."""
    before = _named(holdings)
    found = list(holdings.storage.inventory())
    # Blobs are stored before they are named and removed after: what is named before and after the look should be there.
    after = _named(holdings)
    named = before & after
    keys = {file.key for file in found if file.key is not None}
    missing = {blob for blob in named - keys if not _opens(holdings.storage, blob)}
    damaged = {blob for blob in named & keys if not _is_whole(holdings.storage, blob)} if deep else set()
    yield from _lost(holdings, "missing-blobs", "missing", missing)
    if deep:
        yield from _lost(holdings, "damaged-blobs", "damaged", damaged)

    too_old_s = holdings.settings.orphan_grace_s + 2 * holdings.settings.sweep_every_s
    old = [file for file in found if file.age_s > too_old_s]
    orphans = [file for file in old if file.key is not None and file.key not in after]
    parts = [file for file in old if file.key is None]

    def sweep() -> str:
        return f"{counted(holdings.storage.sweep(_named(holdings), holdings.settings.orphan_grace_s), 'file')} removed"

    for check, files, what in (
        ("orphan-blobs", orphans, ("blob that no row names", "blobs that no row names")),
        ("broken-uploads", parts, ("part of an upload that broke off", "parts of uploads that broke off")),
    ):
        size = sum(file.size_bytes for file in files)
        if files:
            message = f"{counted(len(files), *what)}, {size:,} bytes. The sweep should have removed them."
            advice = "Is the clock (beat) running? The repair removes them now."
            shown = _some(file.key for file in files if file.key is not None)  # Parts have no key yet.
            yield Finding(check, "problem", message, advice, shown, sweep)
        else:
            yield Finding(check, "ok", f"no {what[1]}")


def _named(holdings: Holdings) -> set[str]:
    with holdings.read_sessions() as session:
        return repository.referenced_blobs(session)


def _opens(storage: Storage, blob: str) -> bool:
    try:
        storage.open(blob).close()
    except StorageDown:
        raise  # That says nothing about the blob.
    except OSError:
        return False
    return True


def _is_whole(storage: Storage, blob: str) -> bool:
    """Whether the blob is what its name says. One that has been removed meanwhile is."""
    digest = hashlib.sha256()
    try:
        with storage.open(blob) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return True
    except StorageDown:
        raise
    except OSError:
        return False  # A disk that cannot read it.
    return digest.hexdigest() == blob


def _lost(holdings: Holdings, check: str, how: str, lost: set[str]) -> Iterator[Finding]:
    """A finding for each kind of row that names one of these blobs."""
    any_row = False
    for loss in LOSSES:
        rows = [row for some in _chunks(lost) for row in _rows_that_name(holdings, loss, some)]
        if not rows:
            continue
        any_row = True
        mend = None if loss.mend is None else _mend_of(holdings, loss, lost, len(rows))
        state: Any = "note" if loss.harmless else "problem"
        message = f"{loss.what[0].upper()}{loss.what[1:]} are {how}: {len(rows):,}."
        yield Finding(check, state, message, loss.advice, _some(rows), mend, loss.lossy)
    if not any_row:
        yield Finding(check, "ok", f"no row names a {how} blob")


def _rows_that_name(holdings: Holdings, loss: Loss, blobs: list[str]) -> list[str]:
    key = loss.column.class_.__mapper__.primary_key
    query = select(*key, loss.column).where(loss.column.in_(blobs), loss.where).order_by(*key)
    joint = "@" if loss.column.class_ is ModelVersion else "/"
    with holdings.read_sessions() as session:
        return [f"{joint.join(map(str, row[:-1]))} ({row[-1][:12]}…)" for row in session.execute(query)]


def _mend_of(holdings: Holdings, loss: Loss, lost: set[str], rows: int) -> Callable[[], str]:
    assert loss.mend is not None
    change = loss.mend

    def mend() -> str:
        for some in _chunks(lost):
            with holdings.sessions.begin() as session:
                change(session, loss, some)
        return f"{loss.done} ({rows:,})"

    return mend


def _chunks(lost: set[str]) -> Iterator[list[str]]:
    ordered = sorted(lost)
    for at in range(0, len(ordered), AT_ONCE):
        yield ordered[at : at + AT_ONCE]


# ---- jobs and operations


def leases(holdings: Holdings) -> Iterator[Finding]:
    """Work that a worker should have ended or given back."""
    settings, slack_s = holdings.settings, holdings.slack_s
    with holdings.read_sessions() as session:
        for check, table, singular in (("stuck-jobs", Job, "job"), ("stuck-operations", Operation, "image")):
            silent = and_(table.state.in_(("running", "cancelling")), table.lease_until < database_now() - slack_s)
            late = database_now() - settings.cancel_grace_s - slack_s
            overdue = and_(table.state == "cancelling", table.cancel_requested < late)
            stuck = session.scalars(select(table.id).where(silent | overdue).order_by(table.id)).all()
            if not stuck:
                yield Finding(check, "ok", f"no {singular} is held by a worker that has gone")
                continue
            yield Finding(
                check,
                "problem",
                f"{counted(len(stuck), singular)} held by a worker that has gone silent.",
                "A running service takes them back within seconds; if it does run, look at the clock (beat) and at the "
                "inference worker, which does the housekeeping. The repair takes them back now.",
                _some(stuck),
                (lambda: _take_back_jobs(holdings)) if table is Job else (lambda: _take_back_operations(holdings)),
            )


def _take_back_jobs(holdings: Holdings) -> str:
    """As the reconciler does it; workers that are alive after all are shut out by their lease's token."""
    settings = holdings.settings
    with holdings.sessions.begin() as session:
        taken_back = jobs.recover_expired(session, settings.max_attempts)
        overdue = jobs.overdue_cancellations(session, settings.cancel_grace_s)
        forced = [job.id for job in overdue if jobs.force_cancelled(session, job.id)]
    states = Counter(taken_back.values())
    cancelled = states["cancelled"] + len(forced)
    return f"{counted(states['queued'], 'job')} queued again, {cancelled} cancelled, {states['failed']} failed"


def _take_back_operations(holdings: Holdings) -> str:
    with holdings.sessions.begin() as session:
        ended = operations.recover_expired(session, operations.OPERATION_ATTEMPTS)
        forced = operations.force_overdue(session, holdings.settings.cancel_grace_s)
    number = len(ended) + len(forced)
    return f"images taken back; of these, {number} have ended and the others are queued again"


def waiting(holdings: Holdings) -> Finding:
    """Jobs that wait although nothing is trained."""
    with holdings.read_sessions() as session:
        by_state = select(Job.state, func.count()).where(Job.state.in_(ACTIVE)).group_by(Job.state)
        # `dict(result)` takes a result for a mapping, because it has `keys`.
        active: dict[str, int] = {state: number for state, number in session.execute(by_state)}  # noqa: C416
        oldest = training_queue.waiting_since(session)
    queued = active.pop("queued", 0)
    if oldest is None or active or (utc_now() - oldest).total_seconds() < QUEUE_PATIENCE_S:
        return Finding("waiting-jobs", "ok", f"{counted(queued, 'job')} waiting, {sum(active.values())} running")
    return Finding(
        "waiting-jobs",
        "problem",
        f"{counted(queued, 'job')} waiting and none running, since {oldest:%Y-%m-%d %H:%M} UTC.",
        "Start the service (drtl up), or, if it runs, look at the log of the training worker.",
    )


# ---- models


def aliases(holdings: Holdings) -> Finding:
    """Aliases of versions that do not exist."""
    there = select(ModelVersion.name).where(
        ModelVersion.owner == ModelAlias.owner,
        ModelVersion.name == ModelAlias.name,
        ModelVersion.version == ModelAlias.version,
    )
    with holdings.read_sessions() as session:
        dangling = session.scalars(select(ModelAlias).where(~there.exists())).all()
    if not dangling:
        return Finding("aliases", "ok", "every alias points at a version that exists")

    def remove() -> str:
        with holdings.sessions.begin() as session:
            again = session.scalars(select(ModelAlias).where(~there.exists())).all()
            for alias in again:
                session.delete(alias)
        return f"{counted(len(again), 'alias', 'aliases')} removed"

    return Finding(
        "aliases",
        "problem",
        f"{counted(len(dangling), 'alias', 'aliases')} of versions that do not exist.",
        "Point them elsewhere with drtl models promote; the repair removes them.",
        _some(f"{alias.name}@{alias.alias} → {alias.version}" for alias in dangling),
        remove,
    )


def models(holdings: Holdings) -> Finding:
    """Jobs that have succeeded and whose model is gone."""
    there = select(ModelVersion.name).where(ModelVersion.job_id == Job.id)
    with holdings.read_sessions() as session:
        without = session.scalars(select(Job.id).where(Job.state == "succeeded", ~there.exists())).all()
    if not without:
        return Finding("models", "ok", "every job that succeeded has its model")
    message = f"{counted(len(without), 'job')} that succeeded, without a model in the registry."
    advice = "They may have been deleted on purpose. If they are missed: train again, or restore a backup."
    return Finding("models", "note", message, advice, _some(without))


# ---- retention


def expired(holdings: Holdings) -> Finding:
    """Rows past their retention, which the sweep should have removed."""
    settings, slack_s = holdings.settings, 2 * holdings.settings.sweep_every_s
    batches = retention.expired_batches(settings.result_retention_s + slack_s)
    datasets = retention.expired_datasets(settings.upload_retention_s + slack_s)
    events = retention.expired_progress(settings.progress_retention_s + slack_s)
    past: tuple[tuple[str, type[Any], Any], ...] = (
        ("operation", Operation, retention.expired_operations(settings.result_retention_s + slack_s)),
        ("batch", Batch, batches),
        ("dataset", Dataset, datasets),
        ("key", IdempotencyKey, retention.expired_idempotency_keys(settings.idempotency_retention_s + slack_s)),
        ("event", JobEvent, events),
        ("delivery", WebhookDelivery, retention.expired_deliveries(settings.webhook_retention_s + slack_s)),
    )
    with holdings.read_sessions() as session:
        counts = {
            name: session.scalar(select(func.count()).select_from(table).where(which)) or 0
            for name, table, which in past
        }
    if not any(counts.values()):
        return Finding("retention", "ok", "nothing has outlived its retention")
    plural = {"batch": "batches", "delivery": "deliveries"}
    told = ", ".join(counted(number, name, plural.get(name)) for name, number in counts.items() if number)

    def remove() -> str:
        with holdings.sessions.begin() as session:
            retention.expire_operations(session, settings.result_retention_s)
            retention.expire_idempotency_keys(session, settings.idempotency_retention_s)
            retention.expire_deliveries(session, settings.webhook_retention_s)
        # These go some at a time, in any order, and what is not late yet goes with them.
        for row, which, expire, retention_s in (
            (Batch.id, batches, retention.expire_operations, settings.result_retention_s),
            (Dataset.id, datasets, retention.expire_datasets, settings.upload_retention_s),
            (JobEvent.id, events, retention.expire_progress, settings.progress_retention_s),
        ):
            while _any(holdings, select(row).where(which)):
                with holdings.sessions.begin() as session:
                    expire(session, retention_s)
        return f"{told} removed"

    advice = "The sweep removes them while the service runs: is the clock (beat) running? The repair removes them now."
    return Finding("retention", "problem", f"Past their retention: {told}.", advice, mend=remove)


def _any(holdings: Holdings, rows: Select[Any]) -> bool:
    with holdings.read_sessions() as session:
        return session.scalar(rows.limit(1)) is not None


NARROW: Final = 2**31 - 1  # The last number that PostgreSQL's INTEGER has.
WIDEN: Final = {  # by what is to be as wide as a bigint
    "job_events.id": "ALTER TABLE job_events ALTER COLUMN id TYPE bigint;",
    "webhook_deliveries.sequence": "ALTER TABLE webhook_deliveries ALTER COLUMN sequence TYPE bigint;",
    "job_events_id_seq": "ALTER SEQUENCE job_events_id_seq AS bigint;",
}


def event_numbers(holdings: Holdings) -> Finding:
    """How many of the numbers of events are used up; none comes back when events are removed. SQLite has enough."""
    with holdings.read_sessions() as session:
        last = session.scalar(select(func.max(JobEvent.id))) or 0
        narrow = [] if session.get_bind().dialect.name == "sqlite" else _narrow(session)
    if not narrow or last < NARROW // 2:
        return Finding("event-numbers", "ok", "there are numbers enough for events")
    return Finding(
        "event-numbers",
        "problem",
        f"{last:,} of {NARROW:,} numbers for events are used up; without any, no job can be begun or go on.",
        "Stop api, workers and clock, and have the database run these, which copies the tables: " + " ".join(narrow),
    )


def _narrow(session: Session) -> list[str]:
    """What is still to be widened, as statements."""
    kinds = text(
        "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema() UNION ALL"
        " SELECT sequencename, data_type::text FROM pg_sequences WHERE schemaname = current_schema()"
    )
    narrow = {name for name, kind in session.execute(kinds) if kind == "integer"}
    return [statement for name, statement in WIDEN.items() if name in narrow]


SHOWN: Final = 20


def _some(items: Any) -> tuple[str, ...]:
    """The first of them, and how many more there are."""
    listed = list(items)
    return (*listed[:SHOWN], f"… and {len(listed) - SHOWN:,} more") if len(listed) > SHOWN else tuple(listed)

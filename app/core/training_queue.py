"""The queue of trainings in the database: who waits, whose job is next, and at which place a job is.

The rule itself is in `app.core.shares`. These queries look at all owners' jobs whatever the session's view, which is
why they are written on tables and not on mapped classes; they give nothing away but counts.
"""

import time
from datetime import datetime

from sqlalchemy import Select, case, func, literal_column, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core import shares
from app.core.owners import view_of
from app.core.shares import InLine, Priority
from app.core.tables import ACTIVE, Job, JobEvent, TrainingShare

JOBS = Job.metadata.tables[Job.__tablename__]
EVENTS = JobEvent.metadata.tables[JobEvent.__tablename__]
SHARES = TrainingShare.metadata.tables[TrainingShare.__tablename__]
# Not a parameter: PostgreSQL plans a statement that it has seen often for any value, and then not by the partial index.
QUEUED = JOBS.c.state == literal_column("'queued'")
CLAIMS = 0x6472_746C  # Names the lock among the advisory locks of the database.


def put_in_line(session: Session, job: Job, priority: Priority) -> None:
    """Give a new job of the session's owner its place, and its owner a turn. The caller adds the job and commits."""
    owner = view_of(session).owner
    job.work_s = shares.expected_work_s(job.options)
    job.charge_s = shares.charge_s(job.work_s, priority)
    job.rank = shares.rank(priority, time.time())
    waiting = in_line(session)
    if owner not in {each.owner for each in waiting}:
        come_in(session, owner, level_of(session, shares.next_of(waiting)))


def level_of(session: Session, first: InLine | None) -> float:
    """Where a newcomer comes in: level with the owner that is next, or where nobody waits with whoever has had most.

    What is begun and has not ended is not counted: it may end early, and its owner have it back. A newcomer that had
    come in level with all of it would then wait for as much work as was not done.
    """
    begun = select(func.coalesce(func.sum(JOBS.c.charge_s), 0.0)).where(
        JOBS.c.owner == SHARES.c.owner, JOBS.c.state.in_(ACTIVE), JOBS.c.started_at.is_not(None)
    )
    settled = select(func.max(SHARES.c.turn - begun.scalar_subquery()))
    if first is not None:
        settled = settled.where(SHARES.c.owner == first.owner)
    return max(0.0, session.scalar(settled) or 0.0)


def come_in(session: Session, owner: str, least_turn: float) -> None:
    """Let the owner's turn be no less than this. Two at once do it once."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(SHARES).values(owner=owner, turn=least_turn)
    raised = case((SHARES.c.turn < row.excluded.turn, row.excluded.turn), else_=SHARES.c.turn)
    session.execute(row.on_conflict_do_update(index_elements=[SHARES.c.owner], set_={"turn": raised}))


def move_on(session: Session, owner: str, by_s: float) -> None:
    """Charge the owner for a job that is begun; a negative amount gives back what a job did not use."""
    session.execute(update(SHARES).where(SHARES.c.owner == owner).values(turn=SHARES.c.turn + by_s))


def wait_for_others(session: Session) -> None:
    """Hold up other claims until the end of this transaction.

    Who is next depends on who was served last. Two claims at once would see the same, and serve one owner twice. SQLite
    has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": CLAIMS})


def in_line(session: Session) -> list[InLine]:
    """All owners some of whose jobs wait."""
    held: dict[str, float] = {}
    running = select(JOBS.c.owner, JOBS.c.charge_s, JOBS.c.work_s).where(JOBS.c.state.in_(("running", "cancelling")))
    for owner, charge_s, work_s in session.execute(running):
        held[owner] = held.get(owner, 0.0) + charge_s / work_s
    rows = session.execute(_waiting_by_owner()).all()
    # An owner whose jobs were queued by a release that knew no turns comes first.
    least = min((row.turn for row in rows if row.turn is not None), default=0.0)
    return [
        InLine(
            owner=row.owner,
            turn=least if row.turn is None else row.turn,
            held=held.get(row.owner, 0.0),
            resumes=row.begun > 0,
            rank=row.rank,
            jobs=row.jobs,
            charge_s=row.charge_s,
        )
        for row in rows
    ]


def _waiting_by_owner() -> Select[tuple[str, int, float, float, int, float | None]]:
    """Reads one narrow index, and of the owners' turns those of the owners in it."""
    waiting = (
        select(
            JOBS.c.owner,
            func.count().label("jobs"),
            func.min(JOBS.c.rank).label("rank"),
            func.sum(JOBS.c.charge_s).label("charge_s"),
            func.count(JOBS.c.started_at).label("begun"),
        )
        .where(QUEUED)
        .group_by(JOBS.c.owner)
        .subquery()
    )
    turn = select(SHARES.c.turn).where(SHARES.c.owner == waiting.c.owner).scalar_subquery().label("turn")
    return select(waiting.c.owner, waiting.c.jobs, waiting.c.rank, waiting.c.charge_s, waiting.c.begun, turn)


def waiting_since(session: Session) -> datetime | None:
    """Since when the job waits that has waited longest, by when it came or came back; None where none waits."""
    back = select(func.max(EVENTS.c.created_at)).where(EVENTS.c.job_id == JOBS.c.id, EVENTS.c.kind == "requeued")
    # Most have never been begun, and are not looked up.
    came_back = case((JOBS.c.started_at.is_not(None), back.scalar_subquery()))
    return session.scalar(select(func.min(func.coalesce(came_back, JOBS.c.created_at))).where(QUEUED))


def first_of(session: Session, chosen: InLine) -> str | None:
    """The job of the owner that is next; None where none waits any more."""
    waiting = select(JOBS.c.id).where(JOBS.c.owner == chosen.owner, QUEUED)
    if chosen.resumes:
        waiting = waiting.where(JOBS.c.started_at.is_not(None))
    return session.scalar(waiting.order_by(JOBS.c.rank, JOBS.c.id).limit(1))


def position(session: Session, job: Job) -> int | None:
    """About how many jobs are begun before this one if nobody queues another, and it: 1 for the next.

    Exact where one owner's jobs wait; None for a job that does not.
    """
    if job.state != "queued":
        return None
    if job.started_at is not None:
        return 1
    own = (JOBS.c.owner == job.owner, QUEUED)
    before = (JOBS.c.rank < job.rank) | ((JOBS.c.rank == job.rank) & (JOBS.c.id < job.id))
    ahead, charge_s = session.execute(
        select(func.count(), func.coalesce(func.sum(JOBS.c.charge_s), 0.0)).where(*own, before)
    ).one()
    owners = in_line(session)
    turn = sum(each.turn for each in owners if each.owner == job.owner) + charge_s
    others = [each for each in owners if each.owner != job.owner]
    return int(1 + ahead + shares.jobs_ahead(others, turn))

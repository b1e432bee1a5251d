"""A witness inside the database: triggers that note every write to a job's row and under which lease token it was made.

The service knows nothing of it. Each of a worker's writes is one UPDATE of the job's row that names its token, so the
tokens, in the order of the writes, tell who worked on a job and when.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Final

from sqlalchemy import Engine, text

TERMINAL: Final = ("succeeded", "failed", "cancelled")
SQLITE: Final = (
    """CREATE TABLE chaos_writes (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, job_id TEXT, attempt INTEGER,
       token_before TEXT, token TEXT, state_before TEXT, state TEXT, phase TEXT, progress REAL, lease_until REAL)""",
    """CREATE TRIGGER chaos_audit AFTER UPDATE ON jobs BEGIN
       INSERT INTO chaos_writes (at, job_id, attempt, token_before, token, state_before, state, phase, progress,
       lease_until) VALUES ((julianday('now') - 2440587.5) * 86400.0, NEW.id, NEW.attempt, OLD.lease_token,
       NEW.lease_token, OLD.state, NEW.state, NEW.phase, NEW.progress, NEW.lease_until); END""",
)
POSTGRESQL: Final = (
    """CREATE TABLE chaos_writes (id BIGSERIAL PRIMARY KEY, at FLOAT8, job_id TEXT, attempt INTEGER,
       token_before TEXT, token TEXT, state_before TEXT, state TEXT, phase TEXT, progress FLOAT8,
       lease_until FLOAT8)""",
    """CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
       INSERT INTO chaos_writes (at, job_id, attempt, token_before, token, state_before, state, phase, progress,
       lease_until) VALUES (extract(epoch from clock_timestamp()), NEW.id, NEW.attempt, OLD.lease_token,
       NEW.lease_token, OLD.state, NEW.state, NEW.phase, NEW.progress, NEW.lease_until); RETURN NEW; END $$""",
    "CREATE TRIGGER chaos_audit AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION chaos_note()",
)


def install(engine: Engine) -> None:
    """Begin to note."""
    with engine.begin() as connection:
        for statement in SQLITE if engine.dialect.name == "sqlite" else POSTGRESQL:
            connection.execute(text(statement))


@dataclass(frozen=True)
class Write:
    """One UPDATE of a job's row, at a time by the database's clock."""

    at: float
    job_id: str
    attempt: int
    token_before: str | None
    token: str | None
    state_before: str
    state: str
    phase: str | None
    progress: float
    lease_until: float | None


@dataclass(frozen=True)
class Tenure:
    """One lease of a job: from its claim to the last write that was made by it, and how it ended."""

    job_id: str
    claimed_at: float
    first_step_at: float | None  # when the attempt first wrote that it trains
    last_write_at: float
    valid_until: float  # as the last write left it; 0 where the worker's parent saw the child die
    ended_at: float | None
    taken_back: bool  # by the reconciler, rather than ended or given back by the worker itself


def writes(engine: Engine) -> list[Write]:
    """All of them, in their order."""
    columns = ", ".join(Write.__dataclass_fields__)
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM chaos_writes ORDER BY id"))  # noqa: S608 - own names
        return [Write(*row) for row in rows]


def tenures(found: list[Write]) -> dict[str, list[Tenure]]:
    """Every job's leases in the order in which they were taken."""
    by_job = sorted(found, key=lambda write: write.job_id)  # Stable: the order within a job stays.
    return {job_id: list(_tenures(list(group))) for job_id, group in groupby(by_job, lambda write: write.job_id)}


def _tenures(found: list[Write]) -> Iterator[Tenure]:
    for at, claim in enumerate(found):
        if claim.token is None or claim.token == claim.token_before:
            continue
        rest = found[at:]
        held = [write for write in rest if write.token == claim.token]
        end = next((write for write in rest if write.token_before == claim.token != write.token), None)
        steps = (b.at for a, b in pairwise(held) if moved(a, b))
        yield Tenure(
            job_id=claim.job_id,
            claimed_at=claim.at,
            first_step_at=next(steps, None),
            last_write_at=held[-1].at,
            valid_until=held[-1].lease_until or 0.0,
            ended_at=None if end is None else end.at,
            taken_back=end is not None and end.state == "queued" and end.attempt == claim.attempt,
        )


def moved(before: Write, after: Write) -> bool:
    """Whether the second write tells of training, rather than renewing the lease only."""
    return after.phase == "fine_tuning" and (before.phase, before.progress) != (after.phase, after.progress)


def stale(found: list[Write]) -> list[dict[str, Any]]:
    """Writes under a token after another token had been there: there must be none."""
    past: dict[str, set[str]] = {}
    wrong = []
    for write in found:
        gone = past.setdefault(write.job_id, set())
        if write.token is not None and write.token in gone:
            wrong.append({"job": write.job_id, "at": write.at, "token": write.token[:8]})
        if write.token_before is not None and write.token_before != write.token:
            gone.add(write.token_before)
    return wrong

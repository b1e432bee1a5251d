"""How many jobs and images are in which state, and how long the oldest has waited; by cheap queries."""

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import deliveries, training_queue
from app.core.owners import Sessions
from app.core.tables import ACTIVE, ENDED, PHASES, Job, Operation, utc_now

STARTING: Final = "starting"  # The phase of a job that runs and has told none yet.
RUNNING: Final = (STARTING, *PHASES)
ACTIVE_EVERY_S: Final = 1.0
ENDED_EVERY_S: Final = 15.0  # Jobs are never removed, so that counting those that have ended takes ever longer.


@dataclass(frozen=True)
class Census:
    """Counts at one moment. A job's phase is empty unless it runs."""

    jobs: dict[tuple[str, str], int] = field(default_factory=dict)  # by state and phase
    operations: dict[str, int] = field(default_factory=dict)  # by state
    oldest_job_s: float = 0.0  # 0 where none waits
    oldest_operation_s: float = 0.0
    waiting_work_s: float = 0.0  # Seconds of one core that the waiting jobs are expected to take.
    pending_webhooks: int = 0  # messages that have neither arrived nor been given up
    overdue_webhook_s: float = 0.0  # 0 where none is ready to be sent


class CensusTaker:
    """Counts at most once a second, however many ask."""

    def __init__(self, read_sessions: Sessions) -> None:
        self._read_sessions = read_sessions
        self._lock = threading.Lock()
        self._last = Census()
        self._due = 0.0
        self._ended: dict[tuple[str, str], int] = {}
        self._ended_due = 0.0

    def take(self) -> Census:
        """The counts, no older than a second (ended jobs: 15). Raises SQLAlchemyError."""
        with self._lock:
            now = time.monotonic()
            if now >= self._due:
                with self._read_sessions() as session:
                    if now >= self._ended_due:
                        self._ended = _jobs(session, ENDED)
                        self._ended_due = now + ENDED_EVERY_S
                    self._last = Census(
                        jobs=_jobs(session, ACTIVE) | self._ended,
                        operations=_operations(session),
                        oldest_job_s=_age_s(training_queue.waiting_since(session)),
                        oldest_operation_s=_age_s(_oldest_operation(session)),
                        waiting_work_s=_waiting_work_s(session),
                        pending_webhooks=deliveries.pending(session),
                        overdue_webhook_s=deliveries.overdue_s(session),
                    )
                self._due = time.monotonic() + ACTIVE_EVERY_S
            return self._last


def _jobs(session: Session, states: tuple[str, ...]) -> dict[tuple[str, str], int]:
    """With every state and phase in it, also at zero: a sum over none at all would be no number, not 0."""
    counts = {(state, phase): 0 for state in states for phase in (RUNNING if state == "running" else ("",))}
    if states is ENDED:
        of_state = select(Job.state, func.count()).where(Job.state.in_(states)).group_by(Job.state)
        return counts | {(state, ""): number for state, number in session.execute(of_state)}
    by_phase = select(Job.state, Job.phase, func.count()).where(Job.state.in_(states)).group_by(Job.state, Job.phase)
    for state, phase, number in session.execute(by_phase):
        key = state, (phase or STARTING) if state == "running" else ""
        counts[key] = counts.get(key, 0) + number
    return counts


def _operations(session: Session) -> dict[str, int]:
    by_state = select(Operation.state, func.count()).group_by(Operation.state)
    counts = dict.fromkeys((*ACTIVE, *ENDED), 0)
    for state, number in session.execute(by_state):
        counts[state] = number
    return counts


def _oldest_operation(session: Session) -> datetime | None:
    return session.scalar(select(func.min(Operation.created_at)).where(Operation.state == "queued"))


def _age_s(since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (utc_now() - since).total_seconds())


def _waiting_work_s(session: Session) -> float:
    return session.scalar(select(func.sum(Job.work_s)).where(Job.state == "queued")) or 0.0

"""What keys and owners use: counted in Valkey where it is a rate, in the database where it is what they have.

To count each request and image in the database would be a write for each. In Valkey it is one short round trip, and all
API processes share the count; if Valkey is lost, a window of counts is, and nothing else.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.core.owners import view_of
from app.core.queue import Queue
from app.core.tables import ACTIVE, Dataset, Job, Operation

log = logging.getLogger(__name__)

MINUTE_S: Final = 60
DAY_S: Final = 86_400
ADDITIONS: Final = 0x7573_6564  # Names these locks among the advisory locks of the database.


@dataclass(frozen=True)
class Window:
    """A count of so many units in a window of time, the one that just came among them."""

    used: int
    limit: int
    seconds: int
    resets_in_s: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit


def count(
    queue: Queue, what: str, whose: str, amount: int, limit: int, seconds: int, now: float | None = None
) -> Window:
    """Add to the count of the present window, which all processes share.

    Where Valkey does not answer, nothing is counted and nothing refused: limits protect the service from its users, and
    must not stop it.
    """
    window, passed = divmod(int(time.time() if now is None else now), seconds)
    name = f"drtl:used:{what}:{whose}:{window}"
    used = 0
    try:
        with queue.redis.pipeline(transaction=False) as pipe:
            pipe.incrby(name, amount)
            pipe.expire(name, 2 * seconds)
            used = int(pipe.execute()[0])
    except RedisError as error:
        log.warning("the use of %s was not counted: %s", what, error)
    return Window(used, limit, seconds, seconds - passed)


def count_alone(session: Session) -> None:
    """Hold up others that count what the session's owner has and then add to it, until the end of this transaction.

    Two at once would find the same room, and both take it. SQLite has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        locked = text("SELECT pg_advisory_xact_lock(:name, hashtext(:owner))")
        session.execute(locked, {"name": ADDITIONS, "owner": view_of(session).owner})


def unfinished_jobs(session: Session) -> int:
    """How many jobs of the session's owner wait or run."""
    own = select(func.count()).select_from(Job).where(Job.owner == view_of(session).owner, Job.state.in_(ACTIVE))
    return session.scalar(own) or 0


def stored_bytes(session: Session) -> int:
    """How many bytes of uploaded files are kept for the session's owner, each as often as it was uploaded."""
    owner = view_of(session).owner
    pairs = select(func.sum(Dataset.stored_bytes)).where(Dataset.owner == owner)
    images = select(func.sum(Operation.stored_bytes)).where(Operation.owner == owner)
    return int(session.scalar(pairs) or 0) + int(session.scalar(images) or 0)

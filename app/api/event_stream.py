"""Server-sent events of a job, replayed and followed from the database."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from app.api.schemas.jobs import EventOut
from app.core import repository
from app.core.errors import NotFound
from app.core.owners import Sessions
from app.core.tables import ENDED, JobEvent

LOOK_EVERY_S = 0.25
KEEP_ALIVE_S = 15.0  # Proxies close connections that are silent for longer.
KEY_EVERY_S = 1.0  # How often a stream that has nothing to tell asks for the key of its reader.
RECONNECT_MS = 1000
PAGE = 200

Place = tuple[str, int]  # A job, and the id of the event that was told last.


@dataclass(frozen=True)
class News:
    """What is new of a job, and whether it has ended; more may follow where the page is full."""

    ended: bool
    events: Sequence[JobEvent]


class EventFeed:
    """News of jobs. All streams that have come to the same place of the same job share one look at the database."""

    def __init__(self) -> None:
        self._looks: dict[Place, asyncio.Task[News]] = {}
        self._readers: Counter[Place] = Counter()

    async def news(self, sessions: Sessions, job_id: str, after: int, patience_s: float) -> News | None:
        """The next news behind `after`; None where there is none in time. Who asks may see the job."""
        place = (job_id, after)
        if place not in self._looks:
            self._looks[place] = asyncio.create_task(_look_until_news(sessions, job_id, after))
        look = self._looks[place]
        self._readers[place] += 1
        try:
            return await asyncio.wait_for(asyncio.shield(look), patience_s)
        except TimeoutError:
            return None
        finally:
            self._readers[place] -= 1
            if self._readers[place] == 0:
                del self._readers[place], self._looks[place]
                look.cancel()


async def stream_events(
    feed: EventFeed, sessions: Sessions, key_is_good: Callable[[], Awaitable[bool]], job_id: str, after: int
) -> AsyncIterator[bytes]:
    """Every event after the given id, then new ones as they happen, until the job has ended and all are told.

    It ends early, without a word, when the key that opened it does: a client that comes back for more is refused.
    """
    yield format_sse_event(retry=RECONNECT_MS)
    spoken = time.monotonic()
    while True:
        silent_s = time.monotonic() - spoken
        news = await feed.news(sessions, job_id, after, min(KEY_EVERY_S, KEEP_ALIVE_S - silent_s))
        if not await key_is_good():
            return
        if news is None:
            if time.monotonic() - spoken >= KEEP_ALIVE_S:
                yield format_sse_event(comment="still here")
                spoken = time.monotonic()
            continue
        for event in news.events:
            after = event.id
            data = EventOut.of(event).model_dump_json()
            yield format_sse_event(id=str(event.id), event=event.kind, data_str=data)
        if news.ended and len(news.events) < PAGE:
            return
        spoken = time.monotonic()


async def _look_until_news(sessions: Sessions, job_id: str, after: int) -> News:
    while True:
        news = await run_in_threadpool(_look, sessions, job_id, after)
        if news.ended or news.events:
            return news
        await asyncio.sleep(LOOK_EVERY_S)


def _look(sessions: Sessions, job_id: str, after: int) -> News:
    """Whether the job has ended is asked first: its last event was written together with its last state."""
    with sessions() as session:
        try:
            ended = repository.get_job(session, job_id).state in ENDED
        except NotFound:  # It was deleted, and its events with it.
            return News(ended=True, events=())
        return News(ended, repository.list_events(session, job_id, after, PAGE))

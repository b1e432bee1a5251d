"""Server-sent events of a job, replayed and followed from the database."""

import time
from collections.abc import AsyncIterator, Sequence

import anyio
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from app.api.deps import Services
from app.api.schemas.jobs import EventOut
from app.core import repository
from app.core.tables import ENDED, JobEvent

LOOK_EVERY_S = 0.25
KEEP_ALIVE_S = 15.0  # Proxies close connections that are silent for longer.
RECONNECT_MS = 1000
PAGE = 200


async def stream_events(services: Services, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Every event after the given id, then new ones as they happen, until the job has ended and all are told."""
    yield format_sse_event(retry=RECONNECT_MS)
    spoken = time.monotonic()
    while True:
        ended, events = await run_in_threadpool(_look, services, job_id, after)
        for event in events:
            after = event.id
            data = EventOut.of(event).model_dump_json()
            yield format_sse_event(id=str(event.id), event=event.kind, data_str=data)
            spoken = time.monotonic()
        if ended and len(events) < PAGE:
            return
        if time.monotonic() - spoken > KEEP_ALIVE_S:
            yield format_sse_event(comment="still here")
            spoken = time.monotonic()
        if len(events) < PAGE:
            await anyio.sleep(LOOK_EVERY_S)


def _look(services: Services, job_id: str, after: int) -> tuple[bool, Sequence[JobEvent]]:
    """Whether the job has ended, asked first: its last event was written together with its last state."""
    with services.read_sessions() as session:
        ended = repository.get_job(session, job_id).state in ENDED
        return ended, repository.list_events(session, job_id, after, PAGE)

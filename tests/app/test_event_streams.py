"""Streams of events: kept open while nothing happens, and no longer than the key that opened them."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.api import event_stream
from app.api.auth import COOKIE
from app.api.key_ring import REMEMBERED_S, TICKET_S, issue_ticket
from app.core import jobs, keys
from app.core.owners import OPEN, look_as
from app.core.settings import Settings
from app.core.tables import ApiKey, Dataset, Job, utc_now
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.test_quotas import database, settings
from tests.servers import eventually

__all__ = ["database", "settings"]  # Fixtures of the quotas' tests.

ENDS_WITHIN_S = 4.0  # Two seconds, and what a busy machine adds
Listen = Callable[[str, dict[str, str]], "Listener"]


@pytest.fixture
def service(settings: Settings) -> Iterator[httpx.Client]:
    with connected(create_app(settings)) as client:
        yield client


@dataclass
class Listener:
    """What a client has been told so far, and the end of its stream."""

    lines: list[str] = field(default_factory=list)
    end: Future[None] = field(default_factory=Future)

    def has_heard(self, word: str) -> bool:
        return any(word in line for line in self.lines)


@pytest.fixture
def listen(service: httpx.Client) -> Iterator[Listen]:
    """Opens the stream of a job, and returns when that has told what had happened before."""
    pool = ThreadPoolExecutor()

    def follow(job_id: str, headers: dict[str, str], lines: list[str]) -> None:
        """A stream that outlives what it is tested for breaks at the read timeout."""
        events = {"Accept": "text/event-stream", **headers}
        with httpx.stream("GET", f"{service.base_url}/v1/jobs/{job_id}/events", headers=events, timeout=6) as answer:
            assert answer.status_code == 200
            lines.extend(answer.iter_lines())

    def open_stream(job_id: str, headers: dict[str, str]) -> Listener:
        listener = Listener()
        listener.end = pool.submit(follow, job_id, headers, listener.lines)
        eventually(lambda: listener.has_heard("before"), timeout_s=5)
        return listener

    yield open_stream
    pool.shutdown()


def job_of(database: sessionmaker[Session], owner: str) -> str:
    """A job that waits, to which something has happened."""
    with database.begin() as session:
        look_as(session, owner)
        dataset = Dataset(scale=1, pairs=[])
        session.add(dataset)
        session.flush()
        job = Job(name="scanner", dataset_id=dataset.id, options={})
        session.add(job)
        session.flush()
    tell(database, job.id, "before")
    return job.id


def tell(database: sessionmaker[Session], job_id: str, phase: str) -> None:
    with database.begin() as session:
        jobs.record(session, job_id, "progress", phase=phase)


def key_of(database: sessionmaker[Session], lasts_s: float = 3600.0) -> tuple[ApiKey, dict[str, str]]:
    """A key of the lab's, and the header that shows it."""
    with database.begin() as session:
        key, token = keys.create(session, "lab", ["read"], expires_at=utc_now() + timedelta(seconds=lasts_s))
    return key, {"Authorization": f"Bearer {token}"}


def ticket_for(key: ApiKey, lasts_s: float = TICKET_S) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={issue_ticket(key, lambda: time.time() + lasts_s - TICKET_S)}"}


@pytest.mark.parametrize("with_ticket", [False, True])
def test_a_stream_ends_soon_after_its_key_is_revoked(
    service: httpx.Client, database: sessionmaker[Session], listen: Listen, *, with_ticket: bool
) -> None:
    job_id, (key, headers) = job_of(database, "lab"), key_of(database)
    if with_ticket:
        headers = ticket_for(key)
    stream = listen(job_id, headers)
    with database.begin() as session:
        keys.revoke(session, key.id)
    stream.end.result(ENDS_WITHIN_S)
    problem(service.get(f"/v1/jobs/{job_id}/events", headers=headers), 401, "unauthorized")


def test_news_is_not_told_to_a_key_that_has_ended_meanwhile(
    database: sessionmaker[Session], listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEY_EVERY_S", 60.0)
    job_id, (key, headers) = job_of(database, "lab"), key_of(database)
    stream = listen(job_id, headers)
    with database.begin() as session:
        keys.revoke(session, key.id)
    time.sleep(REMEMBERED_S)
    tell(database, job_id, "afterwards")
    stream.end.result(ENDS_WITHIN_S)
    assert not stream.has_heard("afterwards")


def test_a_stream_ends_when_its_key_or_its_ticket_expires(database: sessionmaker[Session], listen: Listen) -> None:
    job_id = job_of(database, "lab")
    _, expiring = key_of(database, lasts_s=3.0)
    lasting, headers = key_of(database)
    ended, other = listen(job_id, expiring), listen(job_id, ticket_for(lasting, lasts_s=3.0))
    stays = listen(job_id, headers)
    for stream in (ended, other):
        stream.end.result(3.0 + ENDS_WITHIN_S)
    tell(database, job_id, "afterwards")
    eventually(lambda: stays.has_heard("afterwards"), timeout_s=5)
    assert not ended.has_heard("afterwards")
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    stays.end.result(ENDS_WITHIN_S)
    assert stays.has_heard("event: cancelled")


def test_a_stream_that_was_opened_without_a_key_goes_on_to_its_end(
    database: sessionmaker[Session], listen: Listen
) -> None:
    job_id = job_of(database, OPEN)
    stream = listen(job_id, {})
    time.sleep(REMEMBERED_S + event_stream.KEY_EVERY_S)
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    stream.end.result(ENDS_WITHIN_S)
    assert stream.has_heard("event: cancelled")


def test_a_stream_that_has_nothing_to_tell_says_that_it_is_there(
    database: sessionmaker[Session], listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 1.5)
    job_id = job_of(database, OPEN)
    stream = listen(job_id, {})
    time.sleep(3.6)
    assert stream.lines.count(": still here") == 2
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    stream.end.result(ENDS_WITHIN_S)

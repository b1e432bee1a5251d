"""Requests that wait for an image: however many there are, the service has its threads for others."""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.api.waiting import FIRST_LOOK_S, Waiters
from app.core import operations
from app.core.queue import Queue
from app.core.settings import Settings
from app.main import THREADS, create_app
from tests.app.conftest import connected
from tests.app.material import encoded, pixels
from tests.app.test_models import Register, register
from tests.app.work import Hands
from tests.servers import eventually

__all__ = ["register"]  # A fixture of the registry's tests.

WAITING = 150
PATH = "/v1/models/scanner/super-resolve"


def test_more_waiting_requests_than_threads_leave_the_service_responsive(
    rows: sessionmaker[Session], api_settings: Settings, register: Register
) -> None:
    assert WAITING > THREADS
    register()
    hands = Hands.of(rows, api_settings)
    patient = api_settings.model_copy(update={"wait_s": 60.0})
    body: dict[str, Any] = {"content": encoded(pixels(16, 16)), "headers": {"Content-Type": "image/png"}}

    def all_wait() -> bool:
        with rows() as session:
            return operations.waiting(session) == WAITING

    def finish_all() -> None:
        for _ in range(WAITING):
            hands.succeed(hands.claim())

    async def crowd(url: httpx.URL) -> tuple[list[int], list[float]]:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            posts = [asyncio.create_task(client.post(PATH, **body)) for _ in range(WAITING)]
            await asyncio.to_thread(eventually, all_wait)
            times = []
            for _ in range(20):
                began = time.perf_counter()
                assert (await client.get("/v1/datasets")).status_code == 200
                times.append(time.perf_counter() - began)
            await asyncio.to_thread(finish_all)
            return [answer.status_code for answer in await asyncio.gather(*posts)], times

    with connected(create_app(patient)) as client:
        statuses, times = asyncio.run(crowd(client.base_url))
    hands.queue.close()
    assert set(statuses) == {200}
    assert statistics.median(times) < 0.25


async def waited(waiters: Waiters, ended: Callable[[], bool], timeout_s: float) -> tuple[bool, float]:
    began = time.monotonic()
    return await waiters.until("op_1", ended, timeout_s), time.monotonic() - began


def test_word_of_an_end_ends_the_wait_at_once(valkey_url: str) -> None:
    queue, over = Queue(valkey_url), False

    async def story() -> tuple[bool, float]:
        nonlocal over
        waiters = Waiters(valkey_url)
        async with waiters.listening():
            waiting = asyncio.create_task(waited(waiters, lambda: over, 20))
            await asyncio.sleep(0.3)
            over = True
            await asyncio.to_thread(queue.notify_done, "op_1")
            return await waiting

    seen, seconds = asyncio.run(story())
    queue.close()
    assert seen
    assert seconds < 0.3 + 0.75 * FIRST_LOOK_S


@pytest.mark.parametrize("address", ["the broker", "nowhere"])
def test_an_end_without_word_is_seen_all_the_same(valkey_url: str, address: str) -> None:
    url = valkey_url if address == "the broker" else "redis://127.0.0.1:9/0"

    async def story() -> tuple[bool, float]:
        waiters = Waiters(url)
        async with waiters.listening():
            began = time.monotonic()
            return await waited(waiters, lambda: time.monotonic() > began + 0.2, 20)

    seen, seconds = asyncio.run(story())
    assert seen
    assert seconds < 2 * FIRST_LOOK_S


def test_word_of_something_that_has_not_ended_ends_no_wait(valkey_url: str) -> None:
    queue = Queue(valkey_url)

    async def story() -> tuple[bool, float]:
        waiters = Waiters(valkey_url)
        async with waiters.listening():
            waiting = asyncio.create_task(waited(waiters, lambda: False, 1.0))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(queue.notify_done, "op_1")
            return await waiting

    seen, seconds = asyncio.run(story())
    queue.close()
    assert not seen
    assert seconds >= 1.0

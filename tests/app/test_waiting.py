"""Requests that wait for an image: however many there are, the service has its threads for others."""

import asyncio
import statistics
import time
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.api.waiting import FIRST_LOOK_S, Waiters
from app.core.queue import Queue
from app.core.settings import Settings
from app.main import THREADS
from tests.app.material import encoded, pixels
from tests.app.test_models import Register, register
from tests.app.work import Hands

__all__ = ["register"]  # A fixture of the registry's tests.

WAITING = 200
PATH = "/v1/models/scanner/super-resolve"


def test_more_waiting_requests_than_threads_leave_the_service_responsive(
    client: httpx.Client, rows: sessionmaker[Session], api_settings: Settings, register: Register
) -> None:
    assert WAITING > THREADS
    register()
    hands = Hands.of(rows, api_settings)
    image = encoded(pixels(16, 16))

    async def answers() -> tuple[list[httpx.Response], list[float]]:
        limits = httpx.Limits(max_connections=WAITING + 1)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30, limits=limits) as crowd:
            posts = [
                asyncio.create_task(crowd.post(PATH, content=image, headers={"Content-Type": "image/png"}))
                for _ in range(WAITING)
            ]
            while (await crowd.get("/v1/operations", params={"limit": 200})).text.count('"queued"') < WAITING:
                await asyncio.sleep(0.05)
            times = []
            for _ in range(20):
                began = time.perf_counter()
                assert (await crowd.get("/v1/datasets")).status_code == 200
                times.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)
            await asyncio.to_thread(finish_all)
            return await asyncio.gather(*posts), times

    def finish_all() -> None:
        for _ in range(WAITING):
            hands.succeed(hands.claim())

    made, times = asyncio.run(answers())
    hands.queue.close()
    assert {answer.status_code for answer in made} == {200}
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

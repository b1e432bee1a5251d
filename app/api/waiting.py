"""Lets any number of requests wait for work to end, at the price of one subscription and of no thread."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from app.core.queue import DONE_CHANNEL

log = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 1.0
SLOWER: Final = 1.3  # Each look of a request that waits comes so much later than the one before,
LONGEST_LOOK_S: Final = 5.0  # but no later than this.
SUBSCRIBE_AGAIN_S: Final = 1.0


class Waiters:
    """The requests of this process that wait for something to end, by what they wait for.

    Word of an end comes over the broker's channel. It is no more than a hint: it may be lost, and a worker that stops
    or has lost its lease gives it, too. So whoever waits also looks for itself, ever more seldom.
    """

    def __init__(self, broker_url: str) -> None:
        self._redis = Redis.from_url(broker_url, socket_connect_timeout=2.0, health_check_interval=10)
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the broker within the block."""
        listener = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener
            await self._redis.aclose()

    async def until(self, identifier: str, ended: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until it has `ended`, which is asked in a thread: at once, at every word of it, and now and then."""
        deadline = time.monotonic() + timeout_s
        look_s = FIRST_LOOK_S
        word = asyncio.Event()
        self._waiting.setdefault(identifier, set()).add(word)
        try:
            while not await run_in_threadpool(ended):
                if (left_s := deadline - time.monotonic()) <= 0:
                    return False
                # Requests that came together shall not look together.
                with suppress(TimeoutError):
                    await asyncio.wait_for(word.wait(), min(left_s, look_s * random.uniform(0.8, 1.0)))
                word.clear()
                look_s = min(LONGEST_LOOK_S, look_s * SLOWER)
            return True
        finally:
            self._waiting[identifier].discard(word)
            if not self._waiting[identifier]:
                del self._waiting[identifier]

    def wake(self, identifier: str) -> None:
        """Let whoever waits for this look now."""
        for word in self._waiting.get(identifier, ()):
            word.set()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(DONE_CHANNEL)
                    while True:
                        message = await subscription.get_message(timeout=SUBSCRIBE_AGAIN_S)
                        if message is not None:
                            self.wake(message["data"].decode())
            except (RedisError, OSError) as error:
                log.warning("no word of what ends, requests that wait look for themselves: %s", error)
            await asyncio.sleep(SUBSCRIBE_AGAIN_S)

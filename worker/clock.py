"""Sends the rounds of housekeeping at a steady pace, whatever happens to the machine's time of day."""

import logging
import time
from typing import Any, Final

from celery.beat import Scheduler
from redis.exceptions import RedisError

from app.core.queue import HOUSEKEEPING_QUEUE, Queue

log = logging.getLogger(__name__)

MOST_WAITING: Final = 8  # A round that waits does what later ones would do.


class SteadyScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types.
    """Celery's own goes by the time of day: set back by an hour, it sends nothing for an hour.

    Rounds that nobody serves do not pile up: where several wait, none is added. They carry no time at which they
    expire, because a worker whose clock is ahead would take every one of them for expired. Keeps no file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._due: dict[str, float] = {}
        self._queue = Queue(self.app.conf.broker_url)

    def tick(self) -> float:
        """Send what is due; returns the seconds until the next is."""
        now = time.monotonic()
        for name, entry in self.schedule.items():
            if now >= self._due.get(name, now):
                self._due[name] = now + entry.schedule.run_every.total_seconds()
                if self._is_served():
                    self.apply_entry(entry, producer=self.producer)
        return max(0.0, min(self._due.values()) - time.monotonic())

    def _is_served(self) -> bool:
        try:
            return self._queue.depth(HOUSEKEEPING_QUEUE) < MOST_WAITING
        except RedisError as error:
            log.warning("the broker does not answer, this round is left out: %s", error)
            return False

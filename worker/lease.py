"""Keeps the lease of the work at hand alive, and turns its end into an exception at the work's next step."""

import logging
import mmap
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from app.core.errors import JobCancelled, LeaseLost, OperationCancelled

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.3  # A cancelled job shall stop within a second; to look takes a read, to renew a write.


class WorkerStopping(Exception):
    """This worker is being stopped; the work goes back to the queue."""


class ShutdownFlag:
    """One flag in memory that a worker shares with the children it forks, set when the worker is told to stop."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    def is_set(self) -> bool:
        return self._byte[0] == 1


shutdown = ShutdownFlag()


class Heartbeat:
    """Calls `renew` every `every_s` seconds from a thread of its own while the `with` block runs.

    A database that does not answer ends nothing: the work goes on, and as long as nobody else has taken the lease it
    may still be renewed afterwards. Only a definite answer, cancelled or lost, does, and then `check` raises it.
    Between renewals it calls `look`, which asks for such an answer and writes nothing.
    """

    def __init__(self, renew: Callable[[], None], every_s: float, look: Callable[[], None] = lambda: None) -> None:
        self._renew = renew
        self._look = look
        self._every_s = every_s
        self._ended: JobCancelled | OperationCancelled | LeaseLost | None = None
        self._leave = threading.Event()
        # Its log lines are about the same work.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="heartbeat", daemon=True)

    def check(self) -> None:
        """Raise JobCancelled, OperationCancelled or LeaseLost once the renewal has met it."""
        if self._ended is not None:
            raise self._ended

    def _run(self) -> None:
        renew_at = time.monotonic() + self._every_s
        while not self._leave.wait(min(LOOK_EVERY_S, self._every_s)):
            try:
                if time.monotonic() < renew_at:
                    self._look()
                else:
                    self._renew()
                    renew_at = time.monotonic() + self._every_s
            except (JobCancelled, OperationCancelled, LeaseLost) as end:
                self._ended = end
                return
            except SQLAlchemyError as error:
                # Whatever it is: a heartbeat that gives up would cost the work.
                log.warning("lease not renewed, trying again: %s", error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave.set()
        self._thread.join()

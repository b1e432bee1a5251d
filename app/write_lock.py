"""Takes SQLite's write lock from a process that was stopped (SIGSTOP) inside a transaction.

It would hold up every writer of the service for as long as it stands still, and no row can say so. What it was doing is
rolled back, and goes on as after any other death. On Linux only; elsewhere such a process has to be found by hand.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.supervision import Supervisor

LOOK_EVERY_S = 0.5
LOCKS = Path("/proc/locks")
WRITE_LOCK = 120  # Byte of the -shm file: https://www.sqlite.org/walformat.html, section 2.3


@dataclass
class WriteLockGuard:
    """Looks twice a second; a process that holds the lock and is stopped in two looks running is killed."""

    database: Path
    supervisor: Supervisor
    look_at: float = 0.0
    suspect: int | None = None

    def tick(self) -> None:
        now = time.monotonic()
        if now < self.look_at:
            return
        self.look_at = now + LOOK_EVERY_S
        stopped = stopped_holder(self.database)
        if stopped is not None and stopped == self.suspect and self._is_ours(stopped):
            with suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGKILL)
                self.supervisor.say(
                    f"process {stopped} was stopped inside a transaction and held up all others: killed"
                )
        self.suspect = stopped

    def _is_ours(self, pid: int) -> bool:
        """Whether one of the children leads its session: a visitor, such as a `sqlite3` shell, is left alone."""
        with suppress(ProcessLookupError):
            return os.getsid(pid) in self.supervisor.pids().values()
        return False


def stopped_holder(database: Path) -> int | None:
    """The process that holds the write lock and is stopped; None where there is none, or the kernel does not tell.

    The kernel's table is read instead of asking for the lock: to open and close the file here would drop the locks that
    this process itself may hold on it (POSIX, fcntl).
    """
    try:
        inode = database.with_name(f"{database.name}-shm").stat().st_ino
        locks = LOCKS.read_text()
    except OSError:
        return None
    for line in locks.splitlines():
        match line.split():
            case [_, "POSIX", _, "WRITE", pid, file, first, last]:
                covers = int(first) <= WRITE_LOCK and (last == "EOF" or int(last) >= WRITE_LOCK)
                if covers and file.endswith(f":{inode}") and is_stopped(int(pid)):
                    return int(pid)
    return None


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process; one that a debugger has stopped is its developer's business."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "T"

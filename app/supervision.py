"""Keeps child processes running: starts them, starts again what dies, stops them together, and leaves none behind.

On Linux the kernel kills the children when this process dies, however it dies.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

TICK_S = 0.1
LONGEST_BACKOFF_S = 10.0
STABLE_AFTER_S = 20.0
LARGEST_LOG_BYTES = 20 * 2**20

Say = Callable[[str], None]


@dataclass
class Child:
    """One supervised process: how to start it, and how it is faring."""

    name: str
    command: list[str]
    stop_within_s: float
    stdin: bytes = b""
    pass_fds: tuple[int, ...] = ()
    repair: Callable[[], None] | None = None  # Tried once it has died three times in a row.
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_deaths: int = 0
    start_at: float = 0.0

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Supervisor:
    """Keeps the children of one data folder running."""

    data_dir: Path
    environment: dict[str, str]
    say: Say
    children: dict[str, Child] = field(default_factory=dict)
    trim_at: float = 0.0

    def add(self, child: Child) -> None:
        self.children[child.name] = child
        self.start(child)

    def start(self, child: Child) -> None:
        with log_file(self.data_dir, child.name) as log:
            child.process = spawn(child.command, self.environment, self.data_dir, log, child.stdin, child.pass_fds)
        child.started = time.monotonic()

    def pids(self) -> dict[str, int]:
        """The processes by name, without those that wait to be started again."""
        return {child.name: child.process.pid for child in self.children.values() if child.process is not None}

    def tick(self) -> bool:
        """Start again what has died: at once the first time, ever more slowly where it keeps dying.

        True where a process has been started, so that the pids have changed.
        """
        now = time.monotonic()
        started = False
        for child in self.children.values():
            if child.process is None:
                if now >= child.start_at:
                    started |= self.start_again(child, now)
            elif (code := child.process.poll()) is not None:
                self.bury(child, child.process, code, now)
        if now > self.trim_at:
            self.trim_at = now + 60.0
            try:
                trim_logs(self.data_dir)
            except OSError as error:
                self.say(f"The logs could not be trimmed: {error}")
        return started

    def start_again(self, child: Child, now: float) -> bool:
        """Whether it could be started; a full disk or process table must not end the processes that still run."""
        try:
            self.start(child)
        except OSError as error:
            self.say(f"{child.name} cannot be started: {error}")
            child.start_at = now + LONGEST_BACKOFF_S
            return False
        return True

    def bury(self, child: Child, process: subprocess.Popen[bytes], code: int, now: float) -> None:
        """Kill what the dead child has left behind, and settle when it is started again."""
        kill_group(process)
        child.process = None
        child.quick_deaths = child.quick_deaths + 1 if now - child.started < STABLE_AFTER_S else 1
        wait_s = min(LONGEST_BACKOFF_S, 0.25 * 2 ** (child.quick_deaths - 1)) if child.quick_deaths > 1 else 0.0
        child.start_at = now + wait_s
        if child.quick_deaths == 3 and child.repair is not None:
            try:
                child.repair()
            except OSError as error:  # A full disk must not end the processes that still run.
                self.say(f"{child.name} could not be repaired: {error}")
        self.say(f"{child.name} {ending(code)}, starting it again" + (f" in {wait_s:g} s" if wait_s else ""))

    def stop(self, *names: str) -> None:
        """Ask these children to end, all at once, and kill those that do not end in time."""
        asked = [child for name in names if (child := self.children.pop(name, None)) is not None]
        for child in asked:
            if child.process is not None:
                child.process.terminate()
        began = time.monotonic()
        for child in asked:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, child.stop_within_s - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                self.say(f"{child.name} did not end within {child.stop_within_s:g} s and is killed")
            kill_group(child.process)
            child.process.wait()


def spawn(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    log: IO[bytes],
    stdin: bytes = b"",
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C reaches this one alone, and bound to this one's life."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,  # Not where the operator stands: their folder may hold modules with our names.
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(stdin)
    return process


LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Called in the new process: have the kernel kill it when its parent ends (prctl PR_SET_PDEATHSIG, Linux only)."""
    if LIBC is not None:
        LIBC.prctl(1, signal.SIGKILL)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and of those that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def ending(code: int) -> str:
    return f"was killed ({signal.strsignal(-code) or -code})" if code < 0 else f"ended with code {code}"


def log_path(data_dir: Path, name: str) -> Path:
    return data_dir / "logs" / f"{name}.log"


def log_file(data_dir: Path, name: str) -> IO[bytes]:
    return log_path(data_dir, name).open("ab")


def log_tail(data_dir: Path, name: str, lines: int = 15) -> str:
    return "\n".join(log_path(data_dir, name).read_text(errors="replace").splitlines()[-lines:])


def trim_logs(data_dir: Path) -> None:
    """Keep one older copy of a log that has grown large. Its writer appends, so it goes on at the new end."""
    for path in (data_dir / "logs").glob("*.log"):
        if path.stat().st_size > LARGEST_LOG_BYTES:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)

"""Keeping processes alive, without the service: small children, and what may go wrong around them."""

import signal
import sys
import time
from pathlib import Path

import pytest

from app import supervision
from app.embedded import stop_signals
from app.supervision import Child, Supervisor
from tests.servers import eventually, is_alive

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_child_that_keeps_dying_is_repaired_and_started_ever_more_slowly(
    supervisor: Supervisor, said: list[str]
) -> None:
    repaired: list[int] = []
    child = Child("brief", [sys.executable, "-c", "raise SystemExit(3)"], 1.0)
    child.repair = lambda: repaired.append(child.quick_deaths)
    supervisor.add(child)

    def died_thrice() -> bool:
        supervisor.tick()
        return child.quick_deaths == 3

    eventually(died_thrice)
    assert repaired == [3]
    assert said == [
        "brief ended with code 3, starting it again",
        "brief ended with code 3, starting it again in 0.5 s",
        "brief ended with code 3, starting it again in 1 s",
    ]
    supervisor.stop("brief")


def test_a_repair_that_finds_the_disk_full_ends_nothing(supervisor: Supervisor, said: list[str]) -> None:
    def repair() -> None:
        Path("/dev/full").write_bytes(b"x")

    child = Child("brief", [sys.executable, "-c", "raise SystemExit(3)"], 1.0, repair=repair)
    supervisor.add(Child("sleeper", SLEEPER, 1.0))
    supervisor.add(child)

    def died_thrice() -> bool:
        supervisor.tick()
        return child.quick_deaths == 3

    eventually(died_thrice)
    assert any("brief could not be repaired" in line and "No space left" in line for line in said)
    assert supervisor.children["sleeper"].running()
    supervisor.stop("brief", "sleeper")


def test_pids_change_only_when_a_tick_says_so(supervisor: Supervisor, said: list[str]) -> None:
    child = Child("sleeper", SLEEPER, 1.0)
    supervisor.add(child)
    before = supervisor.pids()
    assert not supervisor.tick()
    assert supervisor.pids() == before
    assert child.process is not None
    child.process.kill()
    eventually(supervisor.tick)
    assert supervisor.pids() != before
    assert said == ["sleeper was killed (Killed), starting it again"]
    supervisor.stop("sleeper")
    assert not is_alive(before["sleeper"])
    assert supervisor.pids() == {}


def test_a_child_that_does_not_end_in_time_is_killed(supervisor: Supervisor, said: list[str]) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    supervisor.add(Child("deaf", [sys.executable, "-c", deaf], 0.2))
    eventually(lambda: "deaf" in supervision.log_tail(supervisor.data_dir, "deaf"))
    pid = supervisor.pids()["deaf"]
    supervisor.stop("deaf")
    assert not is_alive(pid)
    assert said == ["deaf did not end within 0.2 s and is killed"]


def test_a_full_disk_ends_nothing_that_runs(
    supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    supervisor.add(Child("stays", SLEEPER, 1.0))
    dying = Child("dies", SLEEPER, 1.0)
    supervisor.add(dying)
    assert dying.process is not None
    dying.process.kill()
    dying.process.wait()
    with monkeypatch.context() as patch:
        patch.setattr(supervision, "trim_logs", refuse)
        patch.setattr(supervision, "log_file", refuse)
        for _ in range(2):
            assert not supervisor.tick()
    assert list(supervisor.pids()) == ["stays"]
    assert any(line.startswith("dies cannot be started: ") for line in said)
    assert any(line.startswith("The logs could not be trimmed: ") for line in said)
    dying.start_at = time.monotonic()
    assert supervisor.tick()
    supervisor.stop("stays", "dies")


def test_a_log_that_grows_large_keeps_one_older_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(supervision, "LARGEST_LOG_BYTES", 10)
    with supervision.log_file(tmp_path, "api") as log:
        log.write(b"the first twenty bytes")
        log.flush()
        supervision.trim_logs(tmp_path)
        log.write(b"and on")
    assert supervision.log_path(tmp_path, "api").read_bytes() == b"and on"
    assert (tmp_path / "logs" / "api.log.1").read_bytes() == b"the first twenty bytes"


def test_a_service_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stopping:
            signal.raise_signal(signal.SIGHUP)
            assert not stopping
            signal.raise_signal(signal.SIGTERM)
            assert stopping == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)

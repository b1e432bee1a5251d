"""A process that is stopped inside a transaction, without the service: who is killed for it, and who is not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from psycopg.errors import IdleInTransactionSessionTimeout
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app.core import database
from app.core.database import open_database
from app.supervision import Child, Supervisor
from app.write_lock import LOCKS, WriteLockGuard, is_stopped, stopped_holder
from tests.servers import eventually, is_alive

pytestmark = pytest.mark.skipif(not LOCKS.is_file(), reason="the kernel's table of locks is read")

WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO kept VALUES (2)")
print("writing", flush=True)
time.sleep(60)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.sqlite3"
    engine = open_database(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (number INTEGER)"))
        connection.execute(text("INSERT INTO kept VALUES (1)"))
    engine.dispose()
    return path


@contextmanager
def supervised_writer(supervisor: Supervisor, file: Path) -> Iterator[int]:
    """The pid of a child that is inside a transaction."""
    supervisor.add(Child("writer", [sys.executable, "-c", WRITER, str(file)], 1.0))
    log = supervisor.data_dir / "logs" / "writer.log"
    eventually(lambda: "writing" in log.read_text())
    try:
        yield supervisor.pids()["writer"]
    finally:
        with suppress(ProcessLookupError):
            os.kill(supervisor.pids()["writer"], signal.SIGCONT)
        supervisor.stop("writer")


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: is_stopped(pid))


def watch(guard: WriteLockGuard, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        guard.tick()
        time.sleep(0.05)


def test_it_is_killed_and_what_it_had_begun_is_undone(supervisor: Supervisor, said: list[str], file: Path) -> None:
    with supervised_writer(supervisor, file) as writer:
        stop(writer)
        assert stopped_holder(file) == writer
        guard = WriteLockGuard(file, supervisor)
        guard.tick()
        assert not said  # Once is no proof: it may have been met between two signals.
        watch(guard, 1.0)
        assert said == [f"process {writer} was stopped inside a transaction and held up all others: killed"]
        process = supervisor.children["writer"].process
        assert process is not None
        assert process.wait(timeout=2) == -signal.SIGKILL
        engine = open_database(f"sqlite:///{file}")
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO kept VALUES (3)"))
            assert connection.scalars(text("SELECT number FROM kept ORDER BY number")).all() == [1, 3]
        engine.dispose()


def test_one_that_runs_is_left_alone(supervisor: Supervisor, said: list[str], file: Path) -> None:
    with supervised_writer(supervisor, file) as writer:
        assert stopped_holder(file) is None
        watch(WriteLockGuard(file, supervisor), 1.2)
        assert is_alive(writer)
        assert not said


def test_one_that_is_stopped_while_it_holds_nothing_is_left_alone(
    supervisor: Supervisor, said: list[str], file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.sqlite3"
    other.write_bytes(file.read_bytes())
    with supervised_writer(supervisor, other) as writer:
        stop(writer)
        assert stopped_holder(other) == writer
        watch(WriteLockGuard(file, supervisor), 1.2)
        assert is_alive(writer)
        assert not said


def test_a_visitor_is_left_alone(supervisor: Supervisor, said: list[str], file: Path) -> None:
    """Somebody's own program, stopped by Ctrl-Z: not ours to kill."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE) as visitor:
        assert visitor.stdout is not None
        assert visitor.stdout.readline() == b"writing\n"
        stop(visitor.pid)
        assert stopped_holder(file) == visitor.pid
        watch(WriteLockGuard(file, supervisor), 1.2)
        assert visitor.poll() is None
        assert not said
        visitor.kill()


def test_a_missing_database_is_held_by_nobody(tmp_path: Path) -> None:
    assert stopped_holder(tmp_path / "none.sqlite3") is None


def test_postgresql_ends_a_transaction_whose_client_has_gone_quiet(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LONGEST_SILENCE_S", 1)
    engine = open_database(postgres_database)
    other = open_database(postgres_database)
    with pytest.raises(OperationalError) as caught:
        go_quiet(engine, other)
    assert isinstance(caught.value.orig, IdleInTransactionSessionTimeout)
    with other.begin() as connection:
        assert connection.scalar(text("SELECT to_regclass('kept')")) is None
    engine.dispose()
    other.dispose()


def go_quiet(engine: Engine, other: Engine) -> None:
    """Hold what `other` needs, say nothing until it has it, and then go on."""
    with engine.begin() as quiet:
        quiet.execute(text("CREATE TABLE kept (number INTEGER)"))
        quiet.execute(text("SELECT pg_advisory_xact_lock(1)"))
        with other.begin() as waiting:
            waiting.execute(text("SELECT pg_advisory_xact_lock(1)"))
        quiet.execute(text("SELECT 1"))

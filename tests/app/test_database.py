"""What a commit outlasts on SQLite, and how long a lost PostgreSQL is waited for and which times it tells."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from app.core.database import make_durable, open_database, passing_sessions, sessions
from app.core.tables import utc_ago, utc_now

NORMAL, FULL = 1, 2  # https://www.sqlite.org/pragma.html#pragma_synchronous


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/rows.sqlite3")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (words TEXT)")
    yield engine
    engine.dispose()


def note(factory: sessionmaker[Session]) -> int:
    """Write something; returns how it is synchronised."""
    with factory.begin() as session:
        session.execute(text("INSERT INTO notes VALUES ('a')"))
        return int(session.scalar(text("PRAGMA synchronous")) or 0)


def test_every_commit_waits_for_the_disk_but_those_that_may_pass(engine: Engine) -> None:
    lasting, passing = sessions(engine), passing_sessions(engine)  # By turns over the same connection.
    assert [note(factory) for factory in (lasting, passing, lasting, passing)] == [FULL, NORMAL, FULL, NORMAL]


def test_what_has_passed_can_be_made_durable_later(engine: Engine, flushed: list[int]) -> None:
    note(passing_sessions(engine))
    log = Path(f"{engine.url.database}-wal")
    with sessions(engine)() as session:
        make_durable(session)
    assert flushed == [log.stat().st_ino]


def test_nothing_is_missing_where_the_log_has_been_moved_into_the_database(engine: Engine) -> None:
    note(passing_sessions(engine))
    engine.dispose()  # The last to close it moves it.
    assert not Path(f"{engine.url.database}-wal").exists()
    with sessions(engine)() as session:
        make_durable(session)


def test_a_server_that_is_gone_is_noticed_in_seconds(postgres_database: str) -> None:
    engine = open_database(postgres_database)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        agreed = driver.info.get_parameters()
    engine.dispose()
    silence_s = int(agreed["keepalives_idle"]) + int(agreed["keepalives_interval"]) * int(agreed["keepalives_count"])
    assert silence_s <= 30
    assert int(agreed["tcp_user_timeout"]) <= 30_000


def test_times_are_in_utc_whatever_the_servers_time_zone(postgres_database: str) -> None:
    engine = open_database(postgres_database)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET TIME ZONE 'Asia/Tokyo'")
        (now,) = connection.scalars(select(utc_ago()))
    engine.dispose()
    assert now.tzinfo is UTC
    assert abs(utc_now() - now) < timedelta(minutes=5)

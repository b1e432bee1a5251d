"""Fixtures that every part of the suite shares: settings in a fresh folder, and real servers."""

import os
import shutil
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path

# Before anything loads torch: several test processes share few cores, and spinning threads slow them all.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.database import open_database, sessions
from app.core.settings import Settings
from migrations import migrate
from tests.servers import (
    RunningService,
    create_postgres_database,
    embedded_service,
    empty_postgres_database,
    postgres_server,
    valkey_server,
)

# In the words of the tests that skip: real image pairs, commits that a shallow clone lacks, a kernel's permission.
MAY_BE_MISSING = ("shared/data", "no git history", "namespaces are not permitted")


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for the whole session. Tests share it, so they clean what they look at."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server for the whole session; `create_postgres_database` makes databases in it."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated empty SQLite file; copying it is quicker than migrating."""
    path = tmp_path_factory.mktemp("template") / "drtl.sqlite3"
    migrate(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> str:
    """A migrated PostgreSQL database for the whole session."""
    url = create_postgres_database(postgres_url)
    migrate(url)
    return url


@pytest.fixture
def postgres_database(migrated_postgres: str) -> str:
    """The session's PostgreSQL database, found empty; much quicker than one of the test's own."""
    empty_postgres_database(migrated_postgres)
    return migrated_postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated empty database; every test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "drtl.sqlite3")
        return f"sqlite:///{tmp_path / 'drtl.sqlite3'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(engine: Engine) -> sessionmaker[Session]:
    """Makes sessions on the test's database."""
    return sessions(engine)


@pytest.fixture
def service_settings(tmp_path: Path, database_url: str, valkey_url: str) -> Settings:
    """Settings of a service in the test's own folder, with leases short enough to wait for."""
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=valkey_url,
        lease_s=1.0,
        heartbeat_s=0.1,
        training_threads=1,
        inference_threads=1,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With DRTL_REQUIRE_SERVERS set, few things are a reason to skip a test."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    allowed = any(reason in str(report.longrepr) for reason in MAY_BE_MISSING)
    if skipped and os.environ.get("DRTL_REQUIRE_SERVERS") and not allowed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where every test must run: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The whole embedded service, started once. Leases and checkpoints are short; tests use names of their own."""
    with embedded_service(tmp_path_factory.mktemp("service") / "data") as running:
        yield running

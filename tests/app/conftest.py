"""The API under test: a real database, a real Valkey and real blobs, driven through HTTP."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.core.database import open_database, sessions
from app.core.settings import Settings
from app.core.tables import Table
from app.main import create_app
from app.server import configure
from app.supervision import Supervisor
from migrations import migrate


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[tuple[Settings, httpx.Client]]:
    """One running service for all tests; each finds it empty."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("api"), broker_url=valkey_url, wait_s=10.0)
    migrate(settings.database_url)
    with connected(create_app(settings)) as client:
        yield settings, client


@pytest.fixture
def api_settings(service: tuple[Settings, httpx.Client]) -> Iterator[Settings]:
    """The service's settings; what the test has made it keep is removed afterwards."""
    settings, _ = service
    yield settings
    engine = open_database(settings.database_url)
    with engine.begin() as connection:
        for table in reversed(Table.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()
    assert settings.blob_dir is not None
    for path in settings.blob_dir.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.fixture
def client(service: tuple[Settings, httpx.Client], api_settings: Settings) -> httpx.Client:
    return service[1]


@pytest.fixture
def rows(api_settings: Settings) -> Iterator[sessionmaker[Session]]:
    """Sessions of the test's own, as a worker would have them."""
    engine = open_database(api_settings.database_url)
    yield sessions(engine)
    engine.dispose()


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The files that this process has had written to the disk, by inode."""
    inodes: list[int] = []
    flush = os.fsync

    def seen(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    return inodes


@pytest.fixture
def stored(rows: sessionmaker[Session], api_settings: Settings) -> Callable[[], dict[str, int]]:
    """Counts everything that the service keeps; empty where it keeps nothing."""

    def count() -> dict[str, int]:
        assert api_settings.blob_dir is not None
        with rows() as session:
            tables = Table.metadata.sorted_tables
            kept = {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}
        kept["files"] = sum(path.is_file() for path in api_settings.blob_dir.glob("*/*"))
        return {name: number for name, number in kept.items() if number}

    return count


@contextmanager
def connected(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the app behind its real server on a free port."""
    config = configure(app, app.state.settings, port=0, log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, after checking that it is the one expected."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"/problems/{code}", document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


@pytest.fixture(name="problem")
def problem_fixture() -> Callable[[httpx.Response, int, str], dict[str, Any]]:
    return problem


@pytest.fixture
def said() -> list[str]:
    """What the supervisor has told its operator."""
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Supervisor:
    """Of a data folder without a service."""
    (tmp_path / "logs").mkdir()
    return Supervisor(tmp_path, {}, said.append)

"""A backup taken while the service works, as docs/upgrades.md says: first the database, then the blobs."""

import io
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from app.cli import app as cli
from app.core import jobs
from app.core.consistency import Holdings, examine
from app.core.database import open_database, read_sessions, sessions
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Dataset, Job, ModelVersion, Pair
from tests.servers import create_postgres_database, eventually, postgres_programs


@contextmanager
def holdings_of(database_url: str, blob_dir: Path) -> Iterator[Holdings]:
    engine = open_database(database_url)
    settings = Settings(database_url=database_url, blob_dir=blob_dir)
    yield Holdings(settings, sessions(engine), read_sessions(engine), FolderStorage(blob_dir))
    engine.dispose()


def train(database: sessionmaker[Session], storage: Storage, name: str) -> None:
    """A job from its upload to its model, with checkpoints that replace each other: blob first, row second."""

    def put(what: str) -> str:
        return storage.put(io.BytesIO(f"{what} {name}".encode()))

    with database.begin() as session:
        pair = Pair(position=0, name="a", clean_blob=put("clean"), distorted_blob=put("distorted"), report={})
        session.add(dataset := Dataset(scale=1, pairs=[pair]))
        session.flush()
        session.add(Job(name=name, dataset_id=dataset.id, options={}))
    with database.begin() as session:
        lease = jobs.claim_next(session, "task", 60.0)
    assert lease is not None
    outdated = None
    for step in range(3):
        blob = put(f"checkpoint {step}")
        with database.begin() as session:
            jobs.save_checkpoint(session, lease, blob)
        if outdated is not None:
            storage.delete(outdated)
        outdated = blob
    assert outdated is not None
    weights = put("weights")
    with database.begin() as session:
        jobs.succeed(session, lease, metrics={}, verdict="gain", explanation="", weights_blob=weights, card={})
    storage.delete(outdated)


@contextmanager
def working(holdings: Holdings) -> Iterator[None]:
    """Jobs are trained, one after the other, while the block runs."""
    over = threading.Event()
    trained: list[str] = []

    def work() -> None:
        while not over.is_set():
            train(holdings.sessions, holdings.storage, name := f"model-{len(trained)}")
            trained.append(name)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        eventually(lambda: len(trained) >= 3, what="models")
        yield
        seen = len(trained)
        eventually(lambda: len(trained) > seen, what="models")
    finally:
        over.set()
        worker.join()


class Sqlite:
    """Copied by SQLite itself, which waits for nobody."""

    def dump(self, url: str, folder: Path) -> None:
        source, copy = sqlite3.connect(url.removeprefix("sqlite:///")), sqlite3.connect(folder / "drtl.sqlite3")
        with closing(source), closing(copy):
            source.backup(copy)

    def restore(self, folder: Path) -> str:
        return f"sqlite:///{folder / 'drtl.sqlite3'}"


class Postgres:
    """Dumped as of one moment, and read into an empty database."""

    def __init__(self, server_url: str) -> None:
        self.server_url = server_url

    def dump(self, url: str, folder: Path) -> None:
        self._run("pg_dump", "--format", "custom", "--file", folder / "drtl.dump", url.replace("+psycopg", ""))

    def restore(self, folder: Path) -> str:
        url = create_postgres_database(self.server_url)
        target = url.replace("+psycopg", "")
        self._run("pg_restore", "--exit-on-error", "--no-owner", "--dbname", target, folder / "drtl.dump")
        return url

    def _run(self, program: str, *words: str | Path) -> None:
        subprocess.run([postgres_programs() / program, *words], check=True, timeout=60)


@pytest.fixture
def way(request: pytest.FixtureRequest, database_url: str) -> Sqlite | Postgres:
    if database_url.startswith("sqlite"):
        return Sqlite()
    return Postgres(request.getfixturevalue("postgres_url"))


def copy_blobs(source: Path, target: Path) -> None:
    copied = CliRunner().invoke(cli, ["blobs", "copy", str(source), str(target)])
    assert copied.exit_code == 0, copied.output


def losses(holdings: Holdings) -> dict[str, str]:
    """What is missing or damaged, by the rows that name it."""
    found = examine(holdings, deep=True)
    return {line: finding.message for finding in found if "-blobs" in finding.check for line in finding.items}


def test_a_backup_of_the_database_and_then_of_the_blobs_lacks_no_model_and_no_upload(
    database_url: str, way: Sqlite | Postgres, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    with holdings_of(database_url, tmp_path / "blobs") as here, working(here):
        way.dump(database_url, saved)
        copy_blobs(tmp_path / "blobs", saved / "blobs")
    with holdings_of(way.restore(saved), saved / "blobs") as restored:
        with restored.read_sessions() as session:
            assert (session.scalar(select(func.count()).select_from(ModelVersion)) or 0) >= 3
        missing = losses(restored)
        assert all("heckpoints" in message for message in missing.values()), missing
        for finding in examine(restored, deep=True):
            if finding.mend is not None and not finding.lossy:
                finding.mend()
        assert losses(restored) == {}


def test_the_other_way_round_a_model_would_be_lost(database_url: str, way: Sqlite | Postgres, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    with holdings_of(database_url, tmp_path / "blobs") as here:
        assert isinstance(here.storage, FolderStorage)
        train(here.sessions, here.storage, "early")
        copy_blobs(tmp_path / "blobs", saved / "blobs")
        train(here.sessions, here.storage, "late")
        way.dump(database_url, saved)
    with holdings_of(way.restore(saved), saved / "blobs") as restored:
        assert any("eights of models" in message for message in losses(restored).values())

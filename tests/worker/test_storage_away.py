"""Workers whose storage dies: they wait, give work back without blame, and finish once it is there again."""

import io
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

import worker.service
from app.core.object_storage import ObjectStorage
from app.core.settings import Settings
from app.core.storage import Storage, StorageDown
from app.core.tables import Job, JobEvent, Operation
from tests.s3_server import BUCKET, S3Server
from tests.worker.conftest import MakeJob
from worker import reconciler, training
from worker.inference import Inference
from worker.service import Service

SHORT = {"scheme": "baseline", "finetune_steps": 2}


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """SQLite alone: what is tested here does not depend on the database."""
    shutil.copy(sqlite_template, tmp_path / "drtl.sqlite3")
    return f"sqlite:///{tmp_path / 'drtl.sqlite3'}"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def storage(s3: S3Server) -> Storage:
    """Takes the place of the folder from which these tests' rows otherwise come."""
    return ObjectStorage(BUCKET)


@pytest.fixture
def service(service_settings: Settings, storage: Storage) -> Iterator[Service]:
    changed = {"lease_s": 30.0, "checkpoint_every_s": 0.0, "blob_url": f"s3://{BUCKET}"}
    opened = Service.open(service_settings.model_copy(update=changed))
    yield replace(opened, storage=storage)
    opened.close()


def test_a_job_whose_pairs_cannot_be_read_goes_back_without_blame_and_ends_well(
    service: Service,
    s3: S3Server,
    make_job: MakeJob,
    database: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = make_job(**SHORT)
    s3.kill()
    monkeypatch.setattr(worker.service, "PATIENCE_S", 0.0)
    training.run_next(service, "task")
    with database() as session:
        job = session.get_one(Job, job_id)
        events = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)).all()
    assert (job.state, job.attempt, job.error_code) == ("queued", 0, None)
    assert events[-1].payload["reason"] == "the storage does not answer"
    s3.start()
    training.run_next(service, "task")
    with database() as session:
        job = session.get_one(Job, job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_worker_waits_for_a_storage_that_is_only_started_again(
    service: Service, s3: S3Server, make_job: MakeJob, database: sessionmaker[Session]
) -> None:
    job_id = make_job(**SHORT)
    s3.kill()

    at_work = threading.Thread(target=training.run_next, args=(service, "task"))
    at_work.start()
    time.sleep(1.5)
    s3.start()
    at_work.join()
    with database() as session:
        assert session.get_one(Job, job_id).state == "succeeded"


def test_a_checkpoint_is_not_given_up_for_a_storage_that_is_away(
    service: Service, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = service.storage.put(io.BytesIO(b"a checkpoint"))
    s3.kill()
    monkeypatch.setattr(worker.service, "PATIENCE_S", 0.0)
    with pytest.raises(StorageDown):
        training.fetch_checkpoint(service, saved, tmp_path / "copy")


def test_an_image_goes_back_to_the_queue_without_blame(
    service: Service, s3: S3Server, database: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = service.storage.put(io.BytesIO(b"an image"))
    with database.begin() as session:
        session.add(Operation(id="op_00", model_name="m", model_version=1, input_blob=blob, options={"output": "png"}))
    s3.kill()
    monkeypatch.setattr(worker.service, "PATIENCE_S", 0.0)
    with pytest.raises(StorageDown):
        Inference(service).run_waiting()
    with database() as session:
        operation = session.get_one(Operation, "op_00")
    assert (operation.state, operation.attempt, operation.error_code) == ("queued", 0, None)


def test_a_sweep_of_a_storage_that_is_away_waits_for_the_next(
    service: Service, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    s3.kill()
    reconciler.sweep(service)
    assert "stays until the next sweep" in caplog.text

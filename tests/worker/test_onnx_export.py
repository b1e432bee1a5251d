"""The inference worker makes ONNX files: once, in a child, and says so when it cannot."""

import io
import subprocess
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core import repository
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Job, ModelVersion
from ml.backbones import build
from ml.model_file import pack
from tests.servers import word_of_ends
from tests.worker.conftest import MakeJob
from worker import onnx_export
from worker.service import Service

CARD = {"backbone": "vdsr", "unshuffle": 2, "scale": 1, "licence": "CC0-1.0"}


@pytest.fixture
def service(service_settings: Settings) -> Iterator[Service]:
    service = Service.open(service_settings)
    service.queue.redis.flushdb()
    yield service
    service.close()


@pytest.fixture
def registered(database: sessionmaker[Session], storage: Storage, make_job: MakeJob) -> str:
    """A model's only version; returns its reference."""
    return register(database, storage, make_job(), pack(build("vdsr", 2, seed=0), CARD))


def register(database: sessionmaker[Session], storage: Storage, job_id: str, weights: bytes) -> str:
    blob = storage.put(io.BytesIO(weights))
    with database.begin() as session:
        name = session.get_one(Job, job_id).name
        session.add(ModelVersion(name=name, version=1, job_id=job_id, weights_blob=blob, card=CARD))
    return f"{name}@1"


def read(service: Service, reference: str) -> ModelVersion:
    with service.read_sessions() as session:
        return repository.get_model_version(session, reference.partition("@")[0], 1)


def test_the_file_is_made_named_by_the_row_and_spared_by_the_sweep(service: Service, registered: str) -> None:
    onnx_export.export(service, registered)
    model = read(service, registered)
    assert model.onnx_blob is not None
    with service.read_sessions() as session:
        keep = repository.referenced_blobs(session)
    service.storage.sweep(keep, grace_s=-1.0)
    with service.storage.open(model.onnx_blob) as file:
        assert b"drtl-service" in file.read()


def test_of_two_owners_models_of_one_name_the_asked_owners_is_exported(
    service: Service, registered: str, database: sessionmaker[Session], storage: Storage, make_job: MakeJob
) -> None:
    name, job_id = registered.partition("@")[0], make_job()
    blob = storage.put(io.BytesIO(pack(build("vdsr", 2, seed=1), CARD)))
    with database.begin() as session:
        session.add(ModelVersion(owner="lab", name=name, version=1, job_id=job_id, weights_blob=blob, card=CARD))
    onnx_export.export(service, f"{registered}/lab")
    with service.read_sessions() as session:
        made = {owner: session.get_one(ModelVersion, (owner, name, 1)).onnx_blob for owner in ("", "lab")}
    assert made[""] is None
    assert made["lab"] is not None


def test_what_is_there_is_not_made_again(service: Service, registered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_export.export(service, registered)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("made again"))
    onnx_export.export(service, registered)


def test_a_message_that_comes_while_the_file_is_made_starts_nothing(
    service: Service, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, started = threading.Event(), threading.Event(), 0
    run = subprocess.run

    def slow(*arguments: object, **options: object) -> object:
        nonlocal started
        started += 1
        begun.set()
        assert go_on.wait(30)
        return run(*arguments, **options)  # type: ignore[call-overload]  # Passed on as given.

    monkeypatch.setattr(subprocess, "run", slow)
    first = threading.Thread(target=onnx_export.export, args=(service, registered))
    first.start()
    assert begun.wait(30)
    onnx_export.export(service, registered)
    onnx_export.export(service, "another@1")  # Nor another's: the threads are needed for images.
    go_on.set()
    first.join()
    assert started == 1
    assert read(service, registered).onnx_blob is not None


def test_a_model_that_cannot_be_exported_is_noted_with_a_reference_and_no_inside(
    service: Service, database: sessionmaker[Session], storage: Storage, make_job: MakeJob
) -> None:
    reference = register(database, storage, make_job(), b"no model")
    with word_of_ends(service.queue.redis) as heard:
        onnx_export.export(service, reference)
        assert heard() == {reference}
    model = read(service, reference)
    assert model.onnx_blob is None
    assert "(reference " in str(model.onnx_error)
    assert "/tmp" not in str(model.onnx_error)


def test_a_lost_blob_is_another_attempts_matter(service: Service, registered: str) -> None:
    service.storage.delete(read(service, registered).weights_blob)
    with pytest.raises(FileNotFoundError):
        onnx_export.export(service, registered)
    model = read(service, registered)
    assert (model.onnx_blob, model.onnx_error) == (None, None)


def test_a_full_disk_is_another_attempts_matter_and_no_word_about_the_model(
    service: Service, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def on_a_full_disk(command: list[object], **options: object) -> object:
        return run([*command[:-1], "/dev/full"], **options)  # type: ignore[call-overload]  # Passed on as given.

    monkeypatch.setattr(subprocess, "run", on_a_full_disk)
    with pytest.raises(RuntimeError, match="No space left"):
        onnx_export.export(service, registered)
    model = read(service, registered)
    assert (model.onnx_blob, model.onnx_error) == (None, None)


def test_a_model_that_is_gone_is_no_error(service: Service) -> None:
    onnx_export.export(service, "nobody@1")

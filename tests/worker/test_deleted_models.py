"""Images whose model is deleted before they are restored, by the real worker: they end, and say why."""

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.orm import Session, sessionmaker

from app.core import deletions, repository
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Job, ModelAlias, ModelVersion, Operation
from ml.backbones import build
from ml.images import decode, to_uint8
from ml.match import fingerprint
from ml.model_file import pack
from tests.images import png
from tests.worker.conftest import MakeJob
from worker.inference import Inference, WarmModels
from worker.service import Service

Database = sessionmaker[Session]
Register = Callable[..., str]
Send = Callable[..., str]
CARD: dict[str, Any] = {"backbone": "vdsr", "unshuffle": 2, "scale": 1, "licence": "CC0-1.0"}


def noisy(seed: int, sigma: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((200, 200), Image.Resampling.BICUBIC))
    return (smooth + random.normal(0, sigma, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def service(service_settings: Settings) -> Iterator[Service]:
    service = Service.open(service_settings.model_copy(update={"lease_s": 30.0}))
    yield service
    service.close()


@pytest.fixture
def inference(service: Service) -> Iterator[Inference]:
    inference = Inference(service)
    yield inference
    inference.batcher.close()


@pytest.fixture
def register(database: Database, storage: Storage, make_job: MakeJob) -> Register:
    """Registers the only version of a model, promoted, as a job would have made it; returns its name."""

    def make(seed: int = 0, **of_card: object) -> str:
        job_id, card = make_job(), CARD | of_card
        blob = storage.put(io.BytesIO(pack(build("vdsr", 2, seed=seed), card)))
        with database.begin() as session:
            job = session.get_one(Job, job_id)
            job.state, job.model_version = "succeeded", 1
            session.add(ModelVersion(name=job.name, version=1, job_id=job_id, weights_blob=blob, card=card))
            session.add(ModelAlias(name=job.name, alias="production", version=1))
        return job.name

    return make


@pytest.fixture
def send(database: Database, storage: Storage) -> Send:
    """Queues an image for version 1 of a model, or for `auto`; returns the operation's id."""

    def make(model: str | None, image: bytes | None = None) -> str:
        blob = storage.put(io.BytesIO(image or png(noisy(0, 5.0)[:31, :37])))
        version = None if model is None else 1
        operation = Operation(model_name=model, model_version=version, input_blob=blob, options={"output": "png"})
        with database.begin() as session:
            session.add(operation)
        return operation.id

    return make


def read(database: Database, operation_id: str) -> Operation:
    with database() as session:
        return session.get_one(Operation, operation_id)


def delete(database: Database, model: str) -> None:
    with database.begin() as session:
        deletions.delete_version(session, model, 1)


def sweep(database: Database, storage: Storage) -> None:
    with database() as session:
        storage.sweep(repository.referenced_blobs(session), grace_s=-1.0)


def failed_since_it_was_deleted(operation: Operation) -> bool:
    return (operation.state, operation.error_code, operation.output_blob) == ("failed", "model-deleted", None)


def test_an_image_that_waits_for_a_deleted_version_fails_and_says_so(
    inference: Inference, register: Register, send: Send, database: Database
) -> None:
    name = register()
    waits = send(name)
    delete(database, name)
    inference.run_waiting()
    operation = read(database, waits)
    assert failed_since_it_was_deleted(operation)
    assert operation.error_message == f"{name}@1 was deleted before the image was restored."


def test_a_model_that_is_still_loaded_restores_nothing_more_and_what_it_has_restored_stays(
    inference: Inference, register: Register, send: Send, database: Database, storage: Storage
) -> None:
    name = register()
    before = send(name)
    inference.run_waiting()
    waits = send(name)
    delete(database, name)
    sweep(database, storage)
    inference.run_waiting()
    assert failed_since_it_was_deleted(read(database, waits))
    restored = read(database, before)
    assert restored.state == "succeeded"
    assert restored.output_blob is not None
    with storage.open(restored.output_blob) as file:
        assert Image.open(file).size == (37, 31)


@pytest.mark.parametrize("with_auto", [False, True])
def test_a_version_that_goes_with_its_weights_while_a_worker_is_about_to_load_them_is_no_fault_of_the_services(
    inference: Inference,
    register: Register,
    send: Send,
    database: Database,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    *,
    with_auto: bool,
) -> None:
    name = register(match=reference_of(5.0))
    under_way = send(None if with_auto else name, png(noisy(99, 5.0)))
    load = WarmModels._load

    def late(weights_blob: str, service: Service) -> object:
        delete(database, name)
        sweep(database, storage)
        return load(weights_blob, service)

    monkeypatch.setattr(WarmModels, "_load", staticmethod(late))
    inference.run_waiting()
    assert failed_since_it_was_deleted(read(database, under_way))


def test_weights_that_are_lost_though_their_version_is_there_are_the_services_fault(
    inference: Inference, register: Register, send: Send, database: Database, storage: Storage
) -> None:
    name = register()
    waits = send(name)
    with database() as session:
        storage.delete(repository.get_model_version(session, name, 1).weights_blob)
    with pytest.raises(FileNotFoundError):
        inference.run_waiting()
    assert read(database, waits).error_code == "internal"


def reference_of(sigma: float) -> dict[str, Any]:
    images = [to_uint8(decode(png(noisy(seed, sigma))).pixels) for seed in range(6)]
    reference = fingerprint(images)
    assert reference is not None
    return asdict(reference)


def test_auto_chooses_among_the_models_that_are_left_and_fails_where_none_is(
    inference: Inference, register: Register, send: Send, database: Database
) -> None:
    alike, other = register(match=reference_of(25.0)), register(seed=1, match=reference_of(0.0))
    image = png(noisy(99, 25.0))

    def restored() -> Operation:
        operation_id = send(None, image)
        inference.run_waiting()
        return read(database, operation_id)

    assert restored().model_name == alike
    delete(database, alike)
    assert (restored().state, restored().model_name) == ("succeeded", other)
    delete(database, other)
    assert failed_since_it_was_deleted(restored())

"""One job with the real method in this process: results, cancellation in every phase, resume, and what may go wrong."""

import gc
import hashlib
import io
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import load
from sqlalchemy import select
from torch import Tensor

from app.core import jobs, repository
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.tables import PHASES, Dataset, Job, JobEvent, ModelVersion, Operation, Pair
from ml import checkpoint
from ml.images import UnusableCleanImages
from ml.preview import Preview
from ml.prior import UnusablePrior
from tests.images import image_pairs
from tests.worker.conftest import MakeJob
from worker import follower, training
from worker.failures import diagnose
from worker.follower import JobFollower, finite
from worker.lease import Heartbeat, ShutdownFlag
from worker.own_blobs import sign_png
from worker.service import Service

SHORT: dict[str, Any] = {"scheme": "baseline", "finetune_steps": 4}

# What is tested here does not depend on the database, and takes seconds.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def service(service_settings: Settings) -> Iterator[Service]:
    service = Service.open(service_settings.model_copy(update={"lease_s": 30.0, "checkpoint_every_s": 0.0}))
    yield service
    service.close()


def read(service: Service, job_id: str) -> Job:
    with service.sessions() as session:
        return session.get_one(Job, job_id)


def weights_blob(service: Service, job_id: str) -> str:
    with service.sessions() as session:
        return session.scalars(select(ModelVersion.weights_blob).where(ModelVersion.job_id == job_id)).one()


def weights(service: Service, job_id: str) -> dict[str, torch.Tensor]:
    with service.storage.open(weights_blob(service, job_id)) as file:
        return load(file.read())


def blobs(service: Service) -> set[str]:
    assert isinstance(service.storage, FolderStorage)
    return {path.name for path in service.storage.root.glob("??/*")}


def sweep(service: Service) -> None:
    """Remove what no row names, such as previews that better ones have replaced."""
    with service.read_sessions() as session:
        service.storage.sweep(repository.referenced_blobs(session), grace_s=0.0)


def at_progress(monkeypatch: pytest.MonkeyPatch, react: Callable[[JobFollower, str, dict[str, Any]], None]) -> None:
    """Have `react` called before the follower hears of each step."""
    report = JobFollower.progress

    def progress(self: JobFollower, phase: str, fraction: float, **facts: float | str | Tensor) -> None:
        react(self, phase, facts)
        report(self, phase, fraction, **facts)

    monkeypatch.setattr(JobFollower, "progress", progress)


def test_an_interrupted_job_goes_on_and_ends_with_the_same_weights_to_the_bit(
    service: Service, make_dataset: Callable[..., str], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset()
    whole, interrupted = make_job(dataset, **SHORT), make_job(dataset, **SHORT)
    before = blobs(service)
    training.run_next(service, "task")
    assert read(service, whole).state == "succeeded"

    flag = ShutdownFlag()
    monkeypatch.setattr(follower, "shutdown", flag)
    with monkeypatch.context() as patch:
        at_progress(patch, lambda _follower, _phase, facts: flag.set() if facts.get("step") == 2 else None)
        training.run_next(service, "task")
    job = read(service, interrupted)
    assert (job.state, job.attempt) == ("queued", 0)
    assert job.checkpoint_blob in blobs(service)

    monkeypatch.setattr(follower, "shutdown", ShutdownFlag())
    steps = []
    at_progress(monkeypatch, lambda _follower, _phase, facts: steps.append(facts["step"]) if "step" in facts else None)
    training.run_next(service, "task")
    assert read(service, interrupted).state == "succeeded"
    assert steps == [3, 4]
    told = told_progress(service, interrupted)
    assert told == sorted(told)
    expected, resumed = weights(service, whole), weights(service, interrupted)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    kept = {weights_blob(service, job_id) for job_id in (whole, interrupted)}
    previews = {read(service, job_id).preview_blob for job_id in (whole, interrupted)}
    assert job.checkpoint_blob not in blobs(service)
    sweep(service)
    assert blobs(service) - before == kept | previews


@pytest.mark.parametrize("phase", PHASES)
def test_a_job_is_cancelled_in_every_phase(
    service: Service, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    job_id = make_job(scheme="drtl-pretrain", transfer_steps=1, finetune_steps=1)
    before = blobs(service)

    def cancel(_follower: JobFollower, current: str, _facts: dict[str, Any]) -> None:
        if current == phase:
            with service.sessions.begin() as session:
                jobs.request_cancel(session, job_id)

    at_progress(monkeypatch, cancel)
    training.run_next(service, "task")
    job = read(service, job_id)
    assert (job.state, job.model_version, job.checkpoint_blob) == ("cancelled", None, None)
    sweep(service)  # Of previews that were replaced, and of weights that were stored before the row said no.
    assert blobs(service) - before <= {job.preview_blob}
    with service.sessions() as session:
        assert session.scalars(select(ModelVersion)).all() == []
        kinds = session.scalars(select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.id)).all()
    assert kinds[-2:] == ["cancelling", "cancelled"]


def test_a_job_of_many_pairs_computes_no_longer_than_a_second_without_looking_whether_it_is_cancelled(
    service: Service, make_dataset: Callable[..., str], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds of the processor, for others may use it, too; torch's compiler is loaded before, as in a worker.

    What all tests before have left in memory is not looked through meanwhile, as it is not in a worker.
    """
    import_module("torch._dynamo")
    gc.collect()
    gc.freeze()
    looked: list[float] = []
    check = Heartbeat.check

    def noted(self: Heartbeat) -> None:
        looked.append(time.process_time())
        check(self)

    monkeypatch.setattr(Heartbeat, "check", noted)
    make_job(make_dataset(12), transfer_steps=1, finetune_steps=3, unshuffle=4)
    looked.append(time.process_time())
    training.run_next(service, "task")
    looked.append(time.process_time())
    gc.unfreeze()
    gaps = [later - earlier for earlier, later in itertools.pairwise(looked)]
    assert len(gaps) > 30
    assert max(gaps) < 1.0


def test_mistakes_in_the_pairs_are_told_and_not_tried_again(service: Service, make_job: MakeJob) -> None:
    (name, clean, _), (_, _, distorted) = image_pairs(1, side=96)[0], image_pairs(1, side=70)[0]
    pair = Pair(
        position=0,
        name=name,
        clean_blob=service.storage.put(io.BytesIO(clean)),
        distorted_blob=service.storage.put(io.BytesIO(distorted)),
        report={},
    )
    dataset = Dataset(scale=1, pairs=[pair])
    with service.sessions.begin() as session:
        session.add(dataset)
    job_id = make_job(dataset.id, **SHORT)
    training.run_next(service, "task")
    job = read(service, job_id)
    assert (job.state, job.error_code) == ("failed", "bad-input")
    assert name in (job.error_message or "")


@pytest.mark.parametrize("side", ["clean", "distorted"])
def test_a_lost_image_is_named_and_the_job_not_tried_again(service: Service, make_job: MakeJob, side: str) -> None:
    job_id = make_job(**SHORT)
    with service.sessions() as session:
        pair = session.get_one(Dataset, session.get_one(Job, job_id).dataset_id).pairs[1]
        name, blob = pair.name, pair.clean_blob if side == "clean" else pair.distorted_blob
    service.storage.delete(blob)
    training.run_next(service, "task")
    job = read(service, job_id)
    assert (job.state, job.error_code) == ("failed", "file-lost")
    assert f"The {side} image of the pair {name!r}" in (job.error_message or "")


def test_an_unforeseen_error_fails_the_job_with_a_reference_and_reaches_the_log(
    service: Service, make_job: MakeJob
) -> None:
    job_id = make_job(preset="no such preset")
    # A KeyError, or, where shapes and types are checked while tests run, what that check raises.
    with pytest.raises(Exception, match="no such preset"):
        training.run_next(service, "task")
    job = read(service, job_id)
    assert (job.state, job.error_code) == ("failed", "internal")
    assert "reference" in (job.error_message or "")
    assert "no such preset" not in (job.error_message or "")


def test_a_prior_that_cannot_be_used_is_the_operators_concern_and_named_in_the_log(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no prior")
    settings = service.settings.model_copy(update={"prior_path": damaged})
    job_id = make_job(**SHORT)
    with pytest.raises(UnusablePrior, match=r"damaged\.safetensors"):
        training.run_next(replace(service, settings=settings), "task")
    job = read(service, job_id)
    assert (job.state, job.error_code) == ("failed", "prior-unusable")
    assert "operator" in (job.error_message or "")
    assert "damaged" not in (job.error_message or "")


def test_clean_images_that_cannot_be_used_are_the_operators_concern_too(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "torn.png").write_bytes(b"no image")
    settings = service.settings.model_copy(update={"clean_dir": tmp_path})
    job_id = make_job(**SHORT | {"scheme": "pretrain"})
    with pytest.raises(UnusableCleanImages, match="no usable image"):
        training.run_next(replace(service, settings=settings), "task")
    job = read(service, job_id)
    assert (job.state, job.error_code) == ("failed", "clean-images-unusable")
    assert str(tmp_path) not in (job.error_message or "")


class FullStorage(FolderStorage):
    """A folder on a disk with no room for checkpoints."""

    refused = 0

    def put(self, stream: BinaryIO, *, durable: bool = True) -> str:
        if isinstance(stream, io.BytesIO):
            return super().put(stream, durable=durable)
        self.refused += 1
        raise OSError(28, "No space left on device")


def test_a_full_disk_costs_checkpoints_but_not_the_job(service_settings: Settings, make_job: MakeJob) -> None:
    opened = Service.open(service_settings.model_copy(update={"checkpoint_every_s": 0.0}))
    assert isinstance(opened.storage, FolderStorage)
    full = FullStorage(opened.storage.root)
    job_id = make_job(**SHORT)
    training.run_next(Service(**vars(opened) | {"storage": full}), "task")
    assert read(opened, job_id).state == "succeeded"
    assert full.refused > 0
    opened.close()


@pytest.mark.parametrize(("share", "stored"), [(1.0, 2), (1e-5, 1)])
def test_checkpoints_take_no_more_than_their_share_of_the_time(
    service_settings: Settings,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    stored: int,
) -> None:
    """At a share of 1 there is one after each step; at 10⁻⁵ what one takes is far longer than the rest of the job."""
    opened = Service.open(service_settings.model_copy(update={"checkpoint_every_s": 0.0, "checkpoint_share": share}))
    written: list[Path] = []
    store = JobFollower._store

    def noted(self: JobFollower, write: Callable[[Path], None]) -> None:
        written.append(self.scratch)
        store(self, write)

    monkeypatch.setattr(JobFollower, "_store", noted)
    job_id = make_job(**SHORT | {"finetune_steps": 2})
    training.run_next(opened, "task")
    assert read(opened, job_id).state == "succeeded"
    assert len(written) == stored
    opened.close()


def test_a_checkpoint_that_is_lost_or_damaged_is_not_used(service: Service, tmp_path: Path) -> None:
    assert isinstance(service.storage, FolderStorage)
    saved = service.storage.put(io.BytesIO(b"a checkpoint"))
    assert training.fetch_checkpoint(service, saved, tmp_path / "copy") is not None
    service.storage._path(saved).write_bytes(b"something else")
    assert training.fetch_checkpoint(service, saved, tmp_path / "copy") is None
    service.storage.delete(saved)
    assert training.fetch_checkpoint(service, saved, tmp_path / "copy") is None


def told_progress(service: Service, job_id: str) -> list[float]:
    with service.sessions() as session:
        told = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == "progress").order_by(JobEvent.id)
        return [event.payload["progress"] for event in session.scalars(told)]


@pytest.mark.parametrize("state", ["of another version", "damaged", "lost"])
def test_a_checkpoint_that_cannot_be_used_means_starting_anew_and_the_progress_says_so(
    service: Service, make_job: MakeJob, tmp_path: Path, state: str
) -> None:
    job_id = make_job(**SHORT)
    path = tmp_path / "checkpoint"
    checkpoint.save(path, {"other": torch.zeros(2)}, {"of": "another version"})
    saved = service.storage.put(io.BytesIO(path.read_bytes() if state == "of another version" else b"no checkpoint"))
    if state == "lost":
        service.storage.delete(saved)
    with service.sessions.begin() as session:
        job = session.get_one(Job, job_id)
        job.checkpoint_blob, job.progress = saved, 0.9
    training.run_next(service, "task")
    assert read(service, job_id).state == "succeeded"
    told = told_progress(service, job_id)
    anew = told[told.index(0.0) :]
    assert anew == sorted(anew)
    assert any(0.0 < progress < 0.9 for progress in anew)


def test_numbers_that_json_lacks_become_null(database_url: str) -> None:
    assert finite({"psnr": float("inf"), "pairs": [1.0, float("nan")], "name": "x", "steps": 3}) == {
        "psnr": None,
        "pairs": [1.0, None],
        "name": "x",
        "steps": 3,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
        (ValueError("pairs: none"), "bad-input"),
        (OSError(28, "No space left on device"), "storage-full"),
        (UnusablePrior("/etc/prior is not whole"), "prior-unusable"),
        (UnusableCleanImages("/srv/clean holds none"), "clean-images-unusable"),
        (RuntimeError("shape mismatch"), "internal"),
    ],
)
def test_each_failure_has_its_code(database_url: str, error: Exception, code: str) -> None:
    assert diagnose(error, bad_value="bad-input").code == code


def preview_events(service: Service, job_id: str) -> list[dict[str, Any]]:
    with service.sessions() as session:
        told = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == "preview").order_by(JobEvent.id)
        return [event.payload for event in session.scalars(told)]


def test_the_preview_kept_is_that_of_the_best_look_and_no_other_than_those_sent_in_meanwhile(
    service: Service, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PREVIEW_EVERY_S", 0.0)
    monkeypatch.setattr(follower, "PREVIEW_SHARE", 1e9)
    job_id = make_job(**SHORT)
    before = blobs(service)
    stored: dict[str, float] = {}
    show = JobFollower._show

    def note(self: JobFollower, seen: Preview, *, improved: bool) -> None:
        stored[hashlib.sha256(sign_png(seen.png, self.owner)).hexdigest()] = seen.psnr
        show(self, seen, improved=improved)
        if len(stored) == 1:  # Somebody has downloaded the first look, and has it restored by another model.
            with service.sessions.begin() as session:
                session.add(Operation(model_name="m", model_version=1, input_blob=next(iter(stored)), options={}))

    monkeypatch.setattr(JobFollower, "_show", note)
    training.run_next(service, "task")
    told = preview_events(service, job_id)
    assert [event["step"] for event in told] == [1, 2, 3, 4]
    best = -1.0
    for event in told:
        assert event["improved"] == (event["psnr_db"] > best)
        best = max(best, event["psnr_db"])
    kept = read(service, job_id).preview_blob
    assert kept is not None
    assert stored[kept] == pytest.approx(best)
    sweep(service)
    assert blobs(service) - before == {kept, next(iter(stored)), weights_blob(service, job_id)}


@pytest.mark.parametrize("best", [3.0, float("inf")])
def test_a_resumed_job_does_not_take_a_worse_look_for_an_improvement(
    service: Service, make_job: MakeJob, tmp_path: Path, best: float
) -> None:
    job_id = make_job()

    def attempt(*looks: float) -> None:
        lease = service.write(lambda session: jobs.claim_next(session, "task", 60.0))
        assert lease is not None
        watched = JobFollower(service, lease, None)  # type: ignore[arg-type]  # Previews ask no heartbeat.
        watched.begin(tmp_path, read(service, job_id))
        for psnr in looks:
            watched.next_preview = 0.0
            watched.preview(partial(Preview, "pair", "scratch", 1, 8, 8, psnr, 1.0, f"png {psnr}".encode()))
        service.write(lambda session: jobs.release(session, lease))

    attempt(1.0, best, 2.0)
    shown = read(service, job_id).preview_blob
    attempt(2.5)
    assert read(service, job_id).preview_blob == shown
    attempt(2.75, 4.0)
    assert (read(service, job_id).preview_blob == shown) == (best > 4.0)
    improved = [event["improved"] for event in preview_events(service, job_id)]
    assert improved == [True, True, False, False, False, best < 4.0]


def test_previews_take_a_small_share_of_the_time_however_long_one_takes(
    service: Service, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PREVIEW_EVERY_S", 0.0)
    make_job()
    lease = service.write(lambda session: jobs.claim_next(session, "task", 60.0))
    assert lease is not None
    watched = JobFollower(service, lease, None)  # type: ignore[arg-type]  # Previews ask no heartbeat.
    spent, looks = [], 0

    def look() -> Preview:
        nonlocal looks
        looks += 1
        time.sleep(0.02)
        return Preview("pair", "scratch", looks, 8, 8, float(looks), 1.0, b"png %d" % looks)

    began = time.monotonic()
    while (passed := time.monotonic() - began) < 5:
        offered = time.monotonic()
        watched.preview(look)
        if (cost := time.monotonic() - offered) > 0.01:
            spent.append(cost)
        time.sleep(0.001)
    assert looks >= 2
    assert sum(spent[:-1]) / passed < 0.02  # The last one's time of rest is not over yet.


def test_a_preview_that_cannot_be_stored_costs_nothing_but_itself(
    service: Service, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(**SHORT)

    def full(self: JobFollower, seen: Preview, *, improved: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JobFollower, "_show", full)
    training.run_next(service, "task")
    job = read(service, job_id)
    assert (job.state, job.preview_blob) == ("succeeded", None)


def test_lpips_weights_that_cannot_be_used_cost_a_job_that_metric_alone(
    service: Service, make_job: MakeJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "alexnet.pth"
    damaged.write_bytes(b"no weights")
    settings = service.settings.model_copy(update={"lpips_weights": damaged})
    job_id = make_job(**SHORT)
    training.run_next(replace(service, settings=settings), "task")
    job = read(service, job_id)
    assert job.state == "succeeded"
    assert job.metrics is not None
    assert job.metrics["result"]["lpips"] is None
    assert "alexnet.pth" in caplog.text

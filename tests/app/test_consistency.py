"""Every inconsistency is made for real, on SQLite and on PostgreSQL; it is found, mended, and then no longer found."""

import io
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.core import consistency, jobs, repository, retention
from app.core.consistency import Holdings
from app.core.database import read_sessions
from app.core.errors import LeaseLost
from app.core.finding import Finding
from app.core.folder_storage import FolderStorage
from app.core.lost_blobs import LOSSES
from app.core.settings import Settings
from app.core.tables import (
    Batch,
    Dataset,
    IdempotencyKey,
    Job,
    JobEvent,
    ModelAlias,
    ModelVersion,
    Operation,
    Pair,
    Webhook,
    WebhookDelivery,
    utc_now,
)

LONG_AGO = utc_now() - timedelta(days=365)
ABSENT = "0" * 64


class House:
    """A service's data, and ways to harm it."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        assert isinstance(holdings.storage, FolderStorage)
        self.storage = holdings.storage

    def put(self, content: bytes) -> str:
        return self.storage.put(io.BytesIO(content))

    def path(self, blob: str) -> Path:
        return self.storage.root / blob[:2] / blob

    def add(self, *rows: object) -> None:
        with self.holdings.sessions.begin() as session:
            session.add_all(rows)

    def dataset(self, name: str = "d") -> Dataset:
        clean, distorted = self.put(f"clean {name}".encode()), self.put(f"distorted {name}".encode())
        pair = Pair(position=0, name="a", clean_blob=clean, distorted_blob=distorted, report={})
        return Dataset(id=f"ds_{name}", scale=1, pairs=[pair])

    def job(self, name: str = "m", **columns: object) -> Job:
        self.add(self.dataset(name))
        job = Job(id=f"job_{name}", name=name, dataset_id=f"ds_{name}", options={}, **columns)
        self.add(job)
        return job

    def model(self, name: str = "m", **columns: object) -> ModelVersion:
        self.job(name, state="succeeded", model_version=1)
        model = ModelVersion(
            name=name, version=1, job_id=f"job_{name}", weights_blob=self.put(f"weights {name}".encode()), card={}
        )
        for column, value in columns.items():
            setattr(model, column, value)
        self.add(model, ModelAlias(name=name, alias="production", version=1))
        return model

    def operation(self, **columns: object) -> Operation:
        given = {"state": "succeeded", "finished_at": utc_now(), "input_blob": self.put(b"input")} | columns
        operation = Operation(model_name="m", model_version=1, options={}, **given)
        self.add(operation)
        return operation

    def wrong(self, *, deep: bool = False) -> dict[str, Finding]:
        """Everything that is not as it should be, by check; of several findings of one check the last."""
        found = consistency.examine(self.holdings, deep=deep)
        return {finding.check: finding for finding in found if finding.state != "ok"}


@pytest.fixture
def house(service_settings: Settings, engine: Engine, database: sessionmaker[Session]) -> House:
    assert service_settings.blob_dir is not None
    storage = FolderStorage(service_settings.blob_dir)
    return House(Holdings(service_settings, database, read_sessions(engine), storage))


def mended(house: House, check: str, *, lossy: bool = False, deep: bool = False) -> str:
    """Mend what the check has found, and see that nothing is left of it."""
    found = house.wrong(deep=deep)
    assert set(found) == {check}, found
    assert found[check].lossy is lossy
    mend = found[check].mend
    assert mend is not None
    done = mend()
    assert house.wrong(deep=deep) == {}
    return done


def test_what_is_as_it_should_be_is_not_found_wrong(house: House) -> None:
    house.model(onnx_blob=house.put(b"onnx"))
    house.job("waits")
    house.job("trains", state="running", lease_token="t", lease_until=time.time() + 60, checkpoint_blob=house.put(b"c"))
    house.operation(output_blob=house.put(b"output"), trust_blob=house.put(b"trust"))
    assert house.wrong(deep=True) == {}


def test_numbers_of_events_that_run_out_are_told_of_in_time_and_can_be_widened(house: House, engine: Engine) -> None:
    job = house.job("waits")
    house.add(JobEvent(id=2**30 + 1, job_id=job.id, kind="requeued", payload={}))
    if engine.dialect.name == "sqlite":
        assert house.wrong() == {}
        return
    assert "1,073,741,825 of 2,147,483,647" in house.wrong()["event-numbers"].message
    left = list(consistency.WIDEN.values())
    while left:
        assert all(statement in house.wrong()["event-numbers"].advice for statement in left)
        with engine.begin() as connection:
            connection.exec_driver_sql(left.pop())
    assert house.wrong() == {}
    house.add(JobEvent(id=2**31, job_id=job.id, kind="requeued", payload={}))
    with house.holdings.sessions() as session:
        assert session.scalar(select(func.max(JobEvent.id))) == 2**31
        assert [event.id for event in repository.list_events(session, job.id, 2**31 - 1, limit=2)] == [2**31]


def test_every_column_that_names_a_blob_has_a_consequence_when_the_blob_is_lost() -> None:
    assert {loss.column for loss in LOSSES} == set(repository.BLOB_COLUMNS)


@pytest.mark.parametrize("column", ["checkpoint_blob", "preview_blob"])
def test_a_job_forgets_a_blob_that_it_can_do_without(house: House, column: str) -> None:
    job = house.job(**{column: ABSENT})
    mended(house, "missing-blobs")
    with house.holdings.sessions() as session:
        kept = session.get_one(Job, job.id)
        assert getattr(kept, column) is None
        assert kept.state == "queued"


def test_an_onnx_file_that_is_lost_is_forgotten_and_its_model_stays(house: House) -> None:
    house.model(onnx_blob=ABSENT)
    mended(house, "missing-blobs")
    with house.holdings.sessions() as session:
        assert session.get_one(ModelVersion, ("", "m", 1)).onnx_blob is None


def test_a_model_without_weights_is_given_up_only_as_a_loss_and_takes_its_aliases_along(house: House) -> None:
    house.path(house.model().weights_blob).unlink()
    house.model("other")
    found = house.wrong()["missing-blobs"]
    assert "m@1" in found.items[0]
    assert found.lossy
    assert found.mend is not None
    found.mend()
    with house.holdings.sessions() as session:
        assert session.get(ModelVersion, ("", "m", 1)) is None
        assert session.get(ModelAlias, ("", "m", "production")) is None
        assert session.get(ModelAlias, ("", "other", "production")) is not None
    left = house.wrong()
    assert {check: finding.state for check, finding in left.items()} == {"models": "note"}


@pytest.mark.parametrize("side", ["clean_blob", "distorted_blob"])
def test_a_dataset_that_no_job_uses_is_given_up_only_as_a_loss(house: House, side: str) -> None:
    dataset = house.dataset()
    house.path(getattr(dataset.pairs[0], side)).unlink()
    house.add(dataset)
    mended(house, "missing-blobs", lossy=True)
    with house.holdings.sessions() as session:
        assert session.get(Dataset, dataset.id) is None


@pytest.mark.parametrize(("state", "verdict"), [("queued", "problem"), ("failed", "note")])
def test_a_pair_of_a_job_is_never_removed_and_matters_only_while_the_job_may_train(
    house: House, state: str, verdict: str
) -> None:
    house.job(state=state)
    with house.holdings.sessions() as session:
        house.path(session.get_one(Dataset, "ds_m").pairs[0].clean_blob).unlink()
    found = house.wrong()["missing-blobs"]
    assert (found.state, found.mend) == (verdict, None)


def test_a_restored_image_that_is_lost_is_a_failure_that_its_sender_sees(house: House) -> None:
    operation = house.operation(output_blob=ABSENT)
    mended(house, "missing-blobs", lossy=True)
    with house.holdings.sessions() as session:
        ended = session.get_one(Operation, operation.id)
        assert (ended.state, ended.error_code, ended.output_blob) == ("failed", "file-lost", None)


def test_an_image_that_waits_and_is_lost_ends_as_failed(house: House) -> None:
    operation = house.operation(state="queued", finished_at=None, input_blob=ABSENT)
    mended(house, "missing-blobs", lossy=True)
    with house.holdings.sessions() as session:
        assert session.get_one(Operation, operation.id).state == "failed"


def test_inputs_and_trust_maps_of_ended_operations_are_forgotten_without_loss(house: House) -> None:
    operation = house.operation(input_blob=ABSENT, trust_blob="1" * 64)
    findings = [finding for finding in consistency.examine(house.holdings) if finding.check == "missing-blobs"]
    assert len(findings) == 2
    for finding in findings:
        assert not finding.lossy
        assert finding.mend is not None
        finding.mend()
    assert house.wrong() == {}
    with house.holdings.sessions() as session:
        assert session.get_one(Operation, operation.id).state == "succeeded"


def test_a_damaged_blob_is_found_by_its_hash_and_only_in_depth(house: House) -> None:
    checkpoint = house.put(b"a checkpoint")
    house.job(checkpoint_blob=checkpoint)
    house.path(checkpoint).write_bytes(b"a checkpoinT")
    assert house.wrong() == {}
    mended(house, "damaged-blobs", deep=True)
    assert house.path(checkpoint).exists()  # The sweep removes it, once nothing names it.


def test_old_blobs_without_a_row_are_removed_and_young_and_named_ones_stay(house: House) -> None:
    named, young, old = house.model().weights_blob, house.put(b"young"), house.put(b"old")
    part = house.storage.incoming / "tmp-broken"
    part.write_bytes(b"half")
    for path in (house.path(named), house.path(old), part):
        os.utime(path, (0, 0))
    found = house.wrong()
    assert set(found) == {"orphan-blobs", "broken-uploads"}
    assert found["orphan-blobs"].items == (old,)
    assert found["broken-uploads"].items == ()
    assert found["orphan-blobs"].mend is not None
    assert found["orphan-blobs"].mend() == "2 files removed"
    assert house.wrong() == {}
    assert house.path(named).exists()
    assert house.path(young).exists()
    assert not house.path(old).exists()


def test_a_job_whose_worker_has_gone_is_taken_back_and_its_worker_is_shut_out(house: House) -> None:
    job = house.job(state="running", attempt=1, lease_token="t", lease_until=1.0)
    assert mended(house, "stuck-jobs") == "1 job queued again, 0 cancelled, 0 failed"
    with house.holdings.sessions.begin() as session:
        assert session.get_one(Job, job.id).state == "queued"
        with pytest.raises(LeaseLost):
            jobs.renew(session, jobs.Lease(job.id, "t", 1), 60)


def test_an_ignored_cancellation_comes_to_rest(house: House) -> None:
    job = house.job(state="cancelling", lease_token="t", lease_until=1e12, cancel_requested=1.0)
    assert mended(house, "stuck-jobs") == "0 jobs queued again, 1 cancelled, 0 failed"
    with house.holdings.sessions() as session:
        assert session.get_one(Job, job.id).state == "cancelled"


def test_an_image_whose_worker_has_gone_is_taken_back(house: House) -> None:
    operation = house.operation(state="running", attempt=1, finished_at=None, lease_token="t", lease_until=1.0)
    mended(house, "stuck-operations")
    with house.holdings.sessions() as session:
        assert session.get_one(Operation, operation.id).state == "queued"


def test_jobs_that_wait_for_long_while_nothing_is_trained_are_a_problem(house: House) -> None:
    house.job(created_at=LONG_AGO)
    assert house.wrong()["waiting-jobs"].state == "problem"
    house.job("busy", state="running", lease_token="t", lease_until=1e12)
    assert house.wrong() == {}


def test_an_alias_of_a_version_that_is_not_there_is_removed_and_the_others_stay(house: House) -> None:
    house.model()
    house.add(ModelAlias(name="m", alias="night", version=7))
    assert mended(house, "aliases") == "1 alias removed"
    with house.holdings.sessions() as session:
        assert repository.model_aliases(session, "m") == {"production": 1}


def test_rows_past_their_retention_are_removed_and_the_others_stay(house: House) -> None:
    old, fresh = house.operation(finished_at=LONG_AGO), house.operation()
    unused = house.dataset("unused")
    unused.created_at = LONG_AGO
    batch = Batch(id="batch_old", model="m@1", options={}, created_at=LONG_AGO)
    house.add(unused, batch, IdempotencyKey(key="k", fingerprint="f", created_at=LONG_AGO))
    job = house.job(state="failed")
    house.add(JobEvent(job_id=job.id, kind="progress", payload={}, created_at=LONG_AGO))
    house.add(JobEvent(job_id=job.id, kind="failed", payload={}, created_at=LONG_AGO))
    house.add(Webhook(id="wh_1", url="https://lab.example/", events=[], key_fingerprint="f"))
    told: dict[str, Any] = {"webhook_id": "wh_1", "event": "ping", "body": "{}", "due_at": 0.0, "pending_since": 0.0}
    house.add(WebhookDelivery(id="msg_old", state="delivered", finished_at=LONG_AGO, **told))
    house.add(WebhookDelivery(id="msg_new", **told))
    done = mended(house, "retention")
    assert done == "1 operation, 1 batch, 1 dataset, 1 key, 1 event, 1 delivery removed"
    with house.holdings.sessions() as session:
        assert session.get(Operation, old.id) is None
        assert session.get(Operation, fresh.id) is not None
        assert session.scalars(select(WebhookDelivery.id)).all() == ["msg_new"]
        assert session.scalars(select(JobEvent.kind)).all() == ["failed"]


def test_rows_past_their_retention_go_to_the_last_however_few_go_at_a_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for some in ("BATCHES_AT_ONCE", "DATASETS_AT_ONCE", "EVENTS_AT_ONCE"):
        monkeypatch.setattr(retention, some, 2)
    job, settings = house.job(state="failed"), house.holdings.settings
    barely = {
        age: utc_now() - timedelta(seconds=getattr(settings, age) + settings.sweep_every_s)
        for age in ("result_retention_s", "upload_retention_s", "progress_retention_s")
    }
    for number in range(6):  # Those that are late only by a little are not counted, but may go before the others.
        late = dict.fromkeys(barely, LONG_AGO) if number % 2 else barely
        house.add(Batch(id=f"batch_{number}", model="m@1", options={}, created_at=late["result_retention_s"]))
        dataset = house.dataset(str(number))
        dataset.created_at = late["upload_retention_s"]
        told = JobEvent(job_id=job.id, kind="progress", payload={}, created_at=late["progress_retention_s"])
        house.add(dataset, told)
    assert mended(house, "retention") == "3 batches, 3 datasets, 3 events removed"


def test_a_repair_of_what_has_changed_meanwhile_changes_nothing(house: House) -> None:
    job = house.job(state="running", attempt=1, lease_token="t", lease_until=1.0, checkpoint_blob=ABSENT)
    found = house.wrong()
    new = house.put(b"new checkpoint")
    with house.holdings.sessions.begin() as session:
        row = session.get_one(Job, job.id)
        row.lease_token, row.lease_until, row.checkpoint_blob = "u", 1e12, new
    mends: list[Callable[[], str] | None] = [finding.mend for finding in found.values()]
    for mend in mends:
        assert mend is not None
        mend()
    with house.holdings.sessions() as session:
        row = session.get_one(Job, job.id)
        assert (row.state, row.lease_token, row.checkpoint_blob) == ("running", "u", new)

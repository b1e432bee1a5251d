"""The reconciler against real rows, a real broker and real blobs."""

import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from app.core import jobs, operations, retention, telemetry
from app.core.folder_storage import FolderStorage
from app.core.queue import HOUSEKEEPING_QUEUE, INFERENCE_QUEUE, TRAINING_QUEUE
from app.core.settings import Settings
from app.core.tables import Batch, Dataset, IdempotencyKey, Job, JobEvent, Operation, Table, utc_now
from tests.servers import word_of_ends
from tests.worker.conftest import MakeJob
from worker import reconciler
from worker.service import Service


@pytest.fixture
def service(service_settings: Settings) -> Iterator[Service]:
    service = Service.open(service_settings)
    service.queue.redis.flushdb()
    yield service
    service.close()


def add(service: Service, *rows: Table) -> None:
    with service.sessions.begin() as session:
        session.add_all(rows)


def operation(**columns: object) -> Operation:
    return Operation(model_name="m", model_version=1, input_blob="b", options={}, **columns)


def test_lost_messages_are_sent_again_and_no_more_than_are_missing(
    service: Service, make_dataset: Callable[..., str], make_job: MakeJob
) -> None:
    dataset = make_dataset()
    for _ in range(3):
        make_job(dataset)
    service.queue.send_training("the one that was not lost")
    add(service, operation())
    for _ in range(3):
        reconciler.reconcile(service)
        assert service.queue.depth(TRAINING_QUEUE) == 3
        assert service.queue.depth(INFERENCE_QUEUE) == 1


def test_a_thousand_waiting_images_are_no_reason_for_a_thousand_messages(service: Service) -> None:
    with service.sessions.begin() as session:
        session.add_all(operation() for _ in range(1000))
    for _ in range(2):
        reconciler.reconcile(service)
        assert service.queue.depth(INFERENCE_QUEUE) == reconciler.WAKE_UPS


def test_a_job_whose_worker_is_lost_gets_its_message_in_the_same_round(service: Service, make_job: MakeJob) -> None:
    job_id = make_job()
    with service.sessions.begin() as session:
        jobs.claim_next(session, "task", lease_s=-1.0)
    reconciler.reconcile(service)
    with service.sessions() as session:
        assert session.get_one(Job, job_id).state == "queued"
    assert service.queue.depth(TRAINING_QUEUE) == 1


def test_whoever_waits_for_an_operation_hears_that_its_worker_was_lost_for_good(service: Service) -> None:
    lost = operation(state="running", attempt=operations.OPERATION_ATTEMPTS, lease_token="t", lease_until=0.0)
    add(service, lost)
    with word_of_ends(service.queue.redis) as heard:
        reconciler.reconcile(service)
        assert heard() == {lost.id}
    with service.sessions() as session:
        assert session.get_one(Operation, lost.id).error_code == "worker-lost"


def expired_leases(service: Service) -> dict[str, float]:
    service.numbers.close()
    totals = telemetry.read_totals(service.queue.redis)
    return {kind: totals.get(f"drtl_leases_expired|{kind}", 0.0) for kind in telemetry.KINDS}


def test_every_loss_of_a_jobs_worker_is_counted_those_that_end_the_job_too(service: Service, make_job: MakeJob) -> None:
    killer = make_job()
    for _ in range(service.settings.max_attempts):
        with service.sessions.begin() as session:
            assert jobs.claim_next(session, "task", lease_s=-1.0)
        reconciler.reconcile(service)
    cancelled = make_job()
    with service.sessions.begin() as session:
        jobs.claim_next(session, "task", lease_s=-1.0)
        jobs.request_cancel(session, cancelled)
    reconciler.reconcile(service)
    with service.sessions() as session:
        assert session.get_one(Job, killer).error_code == "worker-lost"
        assert session.get_one(Job, cancelled).state == "cancelled"
    assert expired_leases(service) == {"job": service.settings.max_attempts + 1, "operation": 0}


def test_images_count_as_given_up_after_their_last_attempt_only(service: Service) -> None:
    lost: dict[str, Any] = {"lease_token": "t", "lease_until": 0.0}
    add(
        service,
        operation(state="running", attempt=operations.OPERATION_ATTEMPTS, **lost),
        operation(state="running", attempt=operations.OPERATION_ATTEMPTS - 1, **lost),
        operation(state="cancelling", cancel_requested=1e12, **lost),
    )
    reconciler.reconcile(service)
    assert expired_leases(service) == {"job": 0, "operation": 1}


def test_a_cancellation_that_is_ignored_is_enforced_after_its_grace(service: Service, make_job: MakeJob) -> None:
    job_id = make_job()
    with service.sessions.begin() as session:
        jobs.claim_next(session, "task", lease_s=60.0)
        jobs.request_cancel(session, job_id)
    reconciler.reconcile(service)
    with service.sessions() as session:
        assert session.get_one(Job, job_id).state == "cancelling"
    impatient = replace(service, settings=service.settings.model_copy(update={"cancel_grace_s": -1.0}))
    reconciler.reconcile(impatient)
    with service.sessions() as session:
        assert session.get_one(Job, job_id).state == "cancelled"


def test_a_cancelled_image_whose_worker_does_not_answer_rests_and_its_waiter_hears_of_it(service: Service) -> None:
    ignored = operation(state="cancelling", lease_token="t", lease_until=1e12, cancel_requested=0.0)
    lost = operation(state="cancelling", lease_token="t", lease_until=0.0, cancel_requested=1e12)
    for row in (ignored, lost):
        add(service, row)
    with word_of_ends(service.queue.redis) as heard:
        reconciler.reconcile(service)
        assert heard() == {ignored.id, lost.id}
    for row in (ignored, lost):
        with service.sessions() as session:
            assert session.get_one(Operation, row.id).state == "cancelled"


def test_without_a_broker_the_rows_are_mended_all_the_same(service_settings: Settings, make_job: MakeJob) -> None:
    job_id = make_job()
    nowhere = Service.open(service_settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"}))
    with nowhere.sessions.begin() as session:
        jobs.claim_next(session, "task", lease_s=-1.0)
    reconciler.reconcile(nowhere)
    with nowhere.sessions() as session:
        assert session.get_one(Job, job_id).state == "queued"
    nowhere.close()


def test_the_mark_of_a_round_says_that_rounds_are_done(service: Service) -> None:
    assert not service.queue.did_a_round_lately()
    reconciler.reconcile(service)
    assert service.queue.did_a_round_lately()
    assert service.queue.depth(HOUSEKEEPING_QUEUE) == 0


def test_ended_operations_and_unused_datasets_expire_and_the_rest_stays(
    service: Service, make_dataset: Callable[..., str], make_job: MakeJob
) -> None:
    long_ago = utc_now() - timedelta(days=365)
    used, unused, fresh = make_dataset(), make_dataset(), make_dataset()
    make_job(used)
    old, waiting, recent = (
        operation(state="succeeded", finished_at=long_ago),
        operation(),
        operation(state="failed", finished_at=utc_now()),
    )
    with service.sessions.begin() as session:
        session.add_all([old, waiting, recent])
        for dataset_id in (used, unused):
            session.get_one(Dataset, dataset_id).created_at = long_ago
    reconciler.sweep(service)
    with service.sessions() as session:
        assert [session.get(Dataset, dataset_id) is None for dataset_id in (used, unused, fresh)] == [
            False,
            True,
            False,
        ]
        kept = [session.get(Operation, row.id) is not None for row in (old, waiting, recent)]
        assert kept == [False, True, True]


def test_a_batch_and_all_of_its_images_expire_together_when_the_last_one_has(service: Service) -> None:
    long_ago = utc_now() - timedelta(days=365)
    over, going_on, lately, young = (Batch(model="m", options={}, created_at=long_ago) for _ in range(4))
    young.created_at = utc_now()
    with service.sessions.begin() as session:
        session.add_all([over, going_on, lately, young])
        session.flush()
        for batch, last in ((over, long_ago), (going_on, None), (lately, utc_now())):
            session.add(operation(batch_id=batch.id, position=0, state="succeeded", finished_at=long_ago))
            session.add(operation(batch_id=batch.id, position=1, finished_at=last))
    reconciler.sweep(service)
    with service.sessions() as session:
        assert set(session.scalars(select(Batch.id))) == {going_on.id, lately.id, young.id}
        kept = session.scalars(select(Operation.batch_id)).all()
    assert Counter(kept) == {going_on.id: 2, lately.id: 2}


def test_old_idempotency_keys_may_be_used_anew(service: Service) -> None:
    long_ago = utc_now() - timedelta(seconds=service.settings.idempotency_retention_s + 1)
    add(service, IdempotencyKey(key="old", fingerprint="f", made_id="job_00", created_at=long_ago))
    add(service, IdempotencyKey(key="young", fingerprint="f", made_id="job_01"))
    reconciler.sweep(service)
    with service.sessions() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["young"]


def test_old_events_of_progress_go_in_portions_and_what_became_of_the_job_stays(
    service: Service, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 4)
    monkeypatch.setattr(reconciler, "EVENT_ROUNDS", 2)
    job_id, long_ago = make_job(), utc_now() - timedelta(seconds=service.settings.progress_retention_s + 1)
    kinds = ["started", *["progress", "preview"] * 5, "graph", "succeeded"]
    add(service, *(JobEvent(job_id=job_id, kind=kind, payload={}, created_at=long_ago) for kind in kinds))
    add(service, JobEvent(job_id=job_id, kind="progress", payload={"step": 7}))

    def left() -> list[str]:
        with service.sessions() as session:
            return list(session.scalars(select(JobEvent.kind).order_by(JobEvent.id)))

    reconciler.sweep(service)
    assert left() == ["started", "progress", "preview", "graph", "succeeded", "progress"]
    reconciler.sweep(service)
    assert left() == ["started", "graph", "succeeded", "progress"]


def test_the_oldest_events_of_progress_are_found_by_their_index(service: Service) -> None:
    dialect = service.engine.dialect
    oldest = select(JobEvent.id).where(retention.expired_progress(1.0)).order_by(JobEvent.id).limit(5)
    query = str(oldest.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with service.sessions() as session:
        if dialect.name == "postgresql":
            for otherwise in ("seqscan", "bitmapscan", "sort"):  # A table of no rows is read whole.
                session.execute(text(f"SET LOCAL enable_{otherwise} = off"))
        explain = "EXPLAIN QUERY PLAN " if dialect.name == "sqlite" else "EXPLAIN "
        plan = "\n".join(str(line) for line in session.execute(text(explain + query)))
    assert "ix_job_events_progress" in plan, plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


def test_only_old_blobs_that_no_row_names_are_swept(service: Service, make_dataset: Callable[..., str]) -> None:
    storage = service.storage
    assert isinstance(storage, FolderStorage)
    make_dataset()
    named = {path.name for path in storage.root.glob("??/*")}
    orphan, young, stored_again = (storage.put(io.BytesIO(text)) for text in (b"orphan", b"young", b"again"))
    broken_upload = storage.incoming / "tmp-broken"
    broken_upload.write_bytes(b"half")
    long_ago = time.time() - 1e6
    for path in [*storage.root.glob("??/*"), broken_upload]:
        if path.name != young:
            os.utime(path, (long_ago, long_ago))
    assert storage.put(io.BytesIO(b"again")) == stored_again
    reconciler.sweep(service)
    assert {path.name for path in storage.root.glob("??/*")} == named | {young, stored_again}
    assert not broken_upload.exists()
    with pytest.raises(FileNotFoundError):
        storage.open(orphan)


def test_a_blob_stored_again_while_it_is_swept_stays(service: Service) -> None:
    storage = service.storage
    assert isinstance(storage, FolderStorage)
    key = storage.put(io.BytesIO(b"renewed"))
    # The sweep has seen it old, and would take it away after it was stored again.
    assert not storage._remove_if_older(storage._path(key), before=time.time() - 60.0)
    with storage.open(key) as file:
        assert file.read() == b"renewed"


def test_operations_count_as_waiting_only_while_they_do(service: Service) -> None:
    add(service, operation())
    with service.sessions.begin() as session:
        assert operations.waiting(session) == 1
        operations.claim_next(session, 60.0)
        assert operations.waiting(session) == 0

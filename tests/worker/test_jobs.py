"""The job's state machine, on SQLite and on PostgreSQL: who may write what, and when."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, func, null, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.core import jobs, logs, repository
from app.core.errors import JobCancelled, LeaseLost
from app.core.jobs import Lease
from app.core.origin import REQUEST_ID
from app.core.tables import Job, JobEvent, ModelAlias, ModelVersion, database_now
from tests.worker.conftest import MakeJob, meanwhile

Database = sessionmaker[Session]
RESULT: dict[str, Any] = {"metrics": {}, "verdict": "gain", "explanation": "", "weights_blob": "w", "card": {}}


def claim(database: Database, lease_s: float = 60.0, task_id: str = "task") -> Lease:
    with database.begin() as session:
        lease = jobs.claim_next(session, task_id, lease_s)
    assert lease is not None
    return lease


def read(database: Database, job_id: str) -> Job:
    with database() as session:
        return session.get_one(Job, job_id)


def kinds(database: Database, job_id: str) -> list[str]:
    with database() as session:
        return list(session.scalars(select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.id)))


def test_many_workers_claim_each_job_once(
    database: Database, make_dataset: Callable[..., str], make_job: MakeJob
) -> None:
    dataset = make_dataset()
    made = {make_job(dataset) for _ in range(12)}
    start = threading.Barrier(8)

    def work(worker: int) -> list[str]:
        start.wait()
        mine: list[str] = []
        while True:
            with database.begin() as session:
                lease = jobs.claim_next(session, f"task-{worker}", 60.0)
            if lease is None:
                return mine
            mine.append(lease.job_id)

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for mine in pool.map(work, range(8)) for job_id in mine]
    assert sorted(claimed) == sorted(made)
    assert {read(database, job_id).attempt for job_id in made} == {1}


def test_the_oldest_job_is_claimed_first(
    database: Database, make_dataset: Callable[..., str], make_job: MakeJob
) -> None:
    dataset = make_dataset()
    made = [make_job(dataset) for _ in range(3)]  # Their ids only tell milliseconds apart.
    assert [claim(database).job_id for _ in made] == made


def test_every_attempt_knows_the_request_that_its_job_came_from(
    database: Database, make_dataset: Callable[..., str], make_job: MakeJob
) -> None:
    """Whatever has woken the worker: a message meant for another job, the reconciler's, or one sent again."""
    dataset = make_dataset()
    for request_id in ("r1", "r2"):
        with logs.about(request_id=request_id):
            make_job(dataset)
    make_job(dataset)  # Not by a request.
    first = claim(database)
    assert [first.origin, claim(database).origin, claim(database).origin] == [
        {REQUEST_ID: "r1"},
        {REQUEST_ID: "r2"},
        {},
    ]
    with database.begin() as session:
        jobs.release(session, first)
    again = claim(database)
    assert (again.job_id, again.origin) == (first.job_id, first.origin)
    with database.begin() as session:  # As rows are that are older than the column.
        session.execute(update(Job).values(origin=null(), state="queued"))
    assert claim(database).origin == {}


def test_a_message_delivered_twice_finds_nothing_the_second_time(database: Database, make_job: MakeJob) -> None:
    make_job()
    claim(database)
    with database.begin() as session:
        assert jobs.claim_next(session, "task", 60.0) is None


GUARDED: dict[str, Callable[[Session, Lease], object]] = {
    "renew": lambda session, lease: jobs.renew(session, lease, 60.0),
    "report_progress": lambda session, lease: jobs.report_progress(session, lease, "transferring", 0.5, None),
    "save_graph": lambda session, lease: jobs.save_graph(session, lease, {"nodes": []}),
    "save_checkpoint": lambda session, lease: jobs.save_checkpoint(session, lease, "c"),
    "release": jobs.release,
    "succeed": lambda session, lease: jobs.succeed(session, lease, **RESULT),
}


@pytest.mark.parametrize("write", GUARDED.values(), ids=GUARDED.keys())
def test_a_worker_that_lost_its_lease_changes_nothing(
    database: Database, make_job: MakeJob, write: Callable[[Session, Lease], object]
) -> None:
    job_id = make_job()
    lost = claim(database, lease_s=-1.0)
    with database.begin() as session:
        assert jobs.recover_expired(session, max_attempts=4) == {job_id: "queued"}
    owner = claim(database)
    before = (read(database, job_id).__dict__, kinds(database, job_id))

    with pytest.raises(LeaseLost), database.begin() as session:
        write(session, lost)

    after = (read(database, job_id).__dict__, kinds(database, job_id))
    assert {**before[0], "_sa_instance_state": None} == {**after[0], "_sa_instance_state": None}
    assert before[1] == after[1]
    with database.begin() as session:
        jobs.renew(session, owner, 60.0)  # The rightful owner is not disturbed.


def test_a_lost_lease_can_neither_fail_nor_cancel_the_job(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lost = claim(database, lease_s=-1.0)
    with database.begin() as session:
        jobs.recover_expired(session, max_attempts=4)
    claim(database)
    with database.begin() as session:
        assert not jobs.fail(session, lost, "internal", "no")
        assert not jobs.confirm_cancelled(session, lost)
    assert read(database, job_id).state == "running"


def test_an_expired_lease_that_nobody_took_may_be_renewed(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lease = claim(database, lease_s=-1.0)
    with database.begin() as session:
        jobs.renew(session, lease, 60.0)
        assert jobs.recover_expired(session, max_attempts=4) == {}
    assert read(database, job_id).state == "running"


def test_a_job_succeeds_once_and_makes_one_model(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.succeed(session, lease, **RESULT)
    with pytest.raises(LeaseLost), database.begin() as session:
        jobs.succeed(session, lease, **RESULT)
    with database() as session:
        assert session.scalar(select(func.count()).select_from(ModelVersion)) == 1
    job = read(database, job_id)
    assert (job.state, job.progress, job.model_version, job.lease_token) == ("succeeded", 1.0, 1, None)
    assert job.finished_at is not None


@pytest.mark.parametrize(("verdict", "promoted"), [("gain", True), ("no_gain", False)])
def test_only_a_gain_moves_production(database: Database, make_job: MakeJob, verdict: str, promoted: bool) -> None:
    make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.succeed(session, lease, **RESULT | {"verdict": verdict})
    with database() as session:
        assert bool(session.scalars(select(ModelAlias)).all()) is promoted


def test_a_silent_worker_gives_the_job_up_until_the_last_attempt(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    for attempt, state in ((1, "queued"), (2, "queued"), (3, "failed")):
        lease = claim(database, lease_s=-1.0)
        assert lease.attempt == attempt
        with database.begin() as session:
            assert jobs.recover_expired(session, max_attempts=3) == {job_id: state}
    job = read(database, job_id)
    assert (job.state, job.error_code) == ("failed", "worker-lost")
    assert "3 times" in (job.error_message or "")
    assert kinds(database, job_id) == ["started", "requeued", "started", "requeued", "started", "failed"]


def test_recovering_at_the_same_time_queues_each_job_once(
    database: Database, make_dataset: Callable[..., str], make_job: MakeJob
) -> None:
    dataset = make_dataset()
    made = [make_job(dataset) for _ in range(6)]
    for _ in made:
        claim(database, lease_s=-1.0)
    start = threading.Barrier(4)

    def recover(_: int) -> dict[str, str]:
        start.wait()
        with database.begin() as session:
            return jobs.recover_expired(session, max_attempts=4)

    with ThreadPoolExecutor(4) as pool:
        recovered = [job_id for found in pool.map(recover, range(4)) for job_id in found]
    assert sorted(recovered) == sorted(made)


def test_a_stopping_worker_gives_the_job_back_and_the_attempt_does_not_count(
    database: Database, make_job: MakeJob
) -> None:
    job_id = make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.save_checkpoint(session, lease, "c")
        jobs.release(session, lease)
    job = read(database, job_id)
    assert (job.state, job.attempt, job.checkpoint_blob) == ("queued", 0, "c")
    assert claim(database).attempt == 1


def test_a_cancelled_job_of_a_stopping_worker_rests(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    with database.begin() as session:
        jobs.release(session, lease)
    assert read(database, job_id).state == "cancelled"


def test_the_lease_of_a_dead_child_ends_at_once(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    claim(database, task_id="dead")
    with database.begin() as session:
        assert not jobs.abandon(session, "another")
        assert jobs.recover_expired(session, max_attempts=4) == {}
        assert jobs.abandon(session, "dead")
        assert jobs.recover_expired(session, max_attempts=4) == {job_id: "queued"}


def test_a_waiting_job_is_cancelled_at_once(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
        jobs.request_cancel(session, job_id)
        assert jobs.claim_next(session, "task", 60.0) is None
    assert read(database, job_id).state == "cancelled"
    assert kinds(database, job_id) == ["cancelled"]


def test_a_running_job_hears_of_its_cancellation_at_its_next_write(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
        jobs.request_cancel(session, job_id)
    with pytest.raises(JobCancelled), database.begin() as session:
        jobs.succeed(session, lease, **RESULT)
    with database.begin() as session:
        assert jobs.confirm_cancelled(session, lease)
    assert kinds(database, job_id) == ["started", "cancelling", "cancelled"]
    with database() as session:
        assert session.scalars(select(ModelVersion)).all() == []


def test_a_cancellation_is_not_lost_on_a_job_that_is_given_back_in_this_moment(
    engine: Engine, database: Database, make_job: MakeJob
) -> None:
    job_id = make_job()
    lease = claim(database)

    def give_back() -> None:
        with database.begin() as session:
            jobs.release(session, lease)

    with meanwhile(engine, "jobs", give_back), database.begin() as session:
        jobs.request_cancel(session, job_id)
    assert read(database, job_id).state == "cancelled"
    assert kinds(database, job_id)[-1] == "cancelled"


def test_cancelling_what_has_ended_changes_nothing(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.succeed(session, lease, **RESULT)
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    assert read(database, job_id).state == "succeeded"


def test_a_cancelled_job_whose_worker_died_rests(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    claim(database, lease_s=-1.0)
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    with database.begin() as session:
        assert jobs.recover_expired(session, max_attempts=4) == {job_id: "cancelled"}
    assert read(database, job_id).state == "cancelled"


def test_a_forced_cancellation_shuts_the_worker_out(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    lease = claim(database)
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    with database.begin() as session:
        assert jobs.overdue_cancellations(session, grace_s=60.0) == []
        assert [job.id for job in jobs.overdue_cancellations(session, grace_s=-1.0)] == [job_id]
        assert jobs.force_cancelled(session, job_id)
        assert not jobs.force_cancelled(session, job_id)
    with pytest.raises(LeaseLost), database.begin() as session:
        jobs.renew(session, lease, 60.0)


def test_the_databases_clock_counts_seconds(database: Database) -> None:
    with database() as session:
        assert session.scalars(select(database_now())).one() == pytest.approx(time.time(), abs=2.0)


def test_an_alias_set_by_two_at_once_is_set_by_both(database: sessionmaker[Session], make_job: MakeJob) -> None:
    job_id = make_job()
    with database.begin() as session:
        session.add(ModelVersion(name="model", version=1, job_id=job_id, weights_blob="0" * 64, card={}))

    def point(alias: str) -> int:
        with database.begin() as session:
            return repository.set_alias(session, "model", alias, 1).version

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(10):
            assert list(pool.map(point, [f"alias-{attempt}"] * 4)) == [1, 1, 1, 1]
    with database() as session:
        assert repository.model_aliases(session, "model") == {f"alias-{attempt}": 1 for attempt in range(10)}

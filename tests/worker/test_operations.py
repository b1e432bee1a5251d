"""The life of one image through a model, on SQLite and on PostgreSQL."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis.strategies import floats, lists
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.core import logs, operations
from app.core.errors import LeaseLost, OperationCancelled
from app.core.operations import OperationLease
from app.core.origin import REQUEST_ID
from app.core.tables import Batch, Operation
from app.core.turns import PACE, turns, work
from tests.worker.conftest import meanwhile

Database = sessionmaker[Session]
MakeOperation = Callable[..., str]


@pytest.fixture
def make_operation(database: Database) -> Callable[..., str]:
    def make(**columns: object) -> str:
        operation = Operation(model_name="m", model_version=1, input_blob="b", options={"output": "png"}, **columns)
        with database.begin() as session:
            session.add(operation)
        return operation.id

    return make


def claim(database: Database, lease_s: float = 60.0) -> OperationLease:
    with database.begin() as session:
        lease = operations.claim_next(session, lease_s)
    assert lease is not None
    return lease


def read(database: Database, operation_id: str) -> Operation:
    with database() as session:
        return session.get_one(Operation, operation_id)


def test_many_workers_claim_each_operation_once(database: Database, make_operation: MakeOperation) -> None:
    made = {make_operation() for _ in range(12)}
    start = threading.Barrier(6)

    def work(_: int) -> list[str]:
        start.wait()
        mine: list[str] = []
        while True:
            with database.begin() as session:
                lease = operations.claim_next(session, 60.0)
            if lease is None:
                return mine
            mine.append(lease.operation_id)

    with ThreadPoolExecutor(6) as pool:
        claimed = [operation_id for mine in pool.map(work, range(6)) for operation_id in mine]
    assert sorted(claimed) == sorted(made)


def test_an_operation_that_is_claimed_tells_of_the_request_that_it_came_from(
    database: Database, make_operation: MakeOperation
) -> None:
    with logs.about(request_id="r1"):
        make_operation()
    make_operation()
    assert [claim(database).origin, claim(database).origin] == [{REQUEST_ID: "r1"}, {}]


@pytest.mark.parametrize(
    "write",
    [
        lambda session, lease: operations.renew(session, lease, 60.0),
        lambda session, lease: operations.report_progress(session, lease, 0.5),
        lambda session, lease: operations.resolve(session, lease, "other", 7),
        lambda session, lease: operations.succeed(session, lease, "out", {}),
        lambda session, lease: operations.fail(session, lease, "internal", "no"),
        operations.release,
    ],
    ids=["renew", "report_progress", "resolve", "succeed", "fail", "release"],
)
def test_a_worker_that_lost_its_lease_changes_nothing(
    database: Database,
    make_operation: MakeOperation,
    write: Callable[[Session, OperationLease], None],
) -> None:
    operation_id = make_operation()
    lost = claim(database, lease_s=-1.0)
    with database.begin() as session:
        operations.recover_expired(session, max_attempts=3)
    owner = claim(database)
    with pytest.raises(LeaseLost), database.begin() as session:
        write(session, lost)
    operation = read(database, operation_id)
    assert (operation.state, operation.lease_token, operation.attempt) == ("running", owner.token, 2)


def test_an_operation_fails_after_its_last_attempt(database: Database, make_operation: MakeOperation) -> None:
    operation_id = make_operation()
    for expected in ({}, {}, {operation_id: "failed"}):
        claim(database, lease_s=-1.0)
        with database.begin() as session:
            assert operations.recover_expired(session, max_attempts=3) == expected
    operation = read(database, operation_id)
    assert (operation.state, operation.error_code) == ("failed", "worker-lost")
    assert operation.finished_at is not None


def test_a_live_operation_is_left_alone(database: Database, make_operation: MakeOperation) -> None:
    operation_id = make_operation()
    claim(database)
    with database.begin() as session:
        assert operations.recover_expired(session, max_attempts=1) == {}
    assert read(database, operation_id).state == "running"


def test_an_operation_given_back_does_not_count_the_attempt(database: Database, make_operation: MakeOperation) -> None:
    operation_id = make_operation()
    lease = claim(database)
    with database.begin() as session:
        operations.release(session, lease)
        assert operations.waiting(session) == 1
    operation = read(database, operation_id)
    assert (operation.state, operation.attempt) == ("queued", 0)


# Cancelling


def cancel(database: Database, operation_id: str) -> None:
    with database.begin() as session:
        operations.request_cancel(session, operation_id)


def test_a_waiting_operation_is_cancelled_at_once(database: Database, make_operation: MakeOperation) -> None:
    operation_id = make_operation()
    cancel(database, operation_id)
    operation = read(database, operation_id)
    assert operation.state == "cancelled"
    assert operation.finished_at is not None
    with database.begin() as session:
        assert operations.claim_next(session, 60.0) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda session, lease: operations.renew(session, lease, 60.0),
        lambda session, lease: operations.report_progress(session, lease, 0.5),
        lambda session, lease: operations.resolve(session, lease, "other", 7),
        lambda session, lease: operations.succeed(session, lease, "out", {}),
    ],
    ids=["renew", "report_progress", "resolve", "succeed"],
)
def test_every_write_tells_the_worker_of_a_cancellation(
    database: Database, make_operation: MakeOperation, write: Callable[[Session, OperationLease], None]
) -> None:
    operation_id = make_operation()
    lease = claim(database)
    cancel(database, operation_id)
    cancel(database, operation_id)
    assert read(database, operation_id).state == "cancelling"
    with pytest.raises(OperationCancelled), database.begin() as session:
        write(session, lease)
    with database.begin() as session:
        assert operations.confirm_cancelled(session, lease)
        assert not operations.confirm_cancelled(session, lease)
    operation = read(database, operation_id)
    assert (operation.state, operation.output_blob, operation.lease_token) == ("cancelled", None, None)


@pytest.mark.parametrize(
    "end",
    [lambda session, lease: operations.fail(session, lease, "internal", "no"), operations.release],
    ids=["fail", "release"],
)
def test_a_cancelled_operation_rests_as_cancelled_however_its_worker_ends_it(
    database: Database, make_operation: MakeOperation, end: Callable[[Session, OperationLease], None]
) -> None:
    operation_id = make_operation()
    lease = claim(database)
    cancel(database, operation_id)
    with database.begin() as session:
        end(session, lease)
    operation = read(database, operation_id)
    assert (operation.state, operation.error_code) == ("cancelled", None)


def test_an_operation_that_has_ended_cannot_be_cancelled(database: Database, make_operation: MakeOperation) -> None:
    operation_id = make_operation()
    lease = claim(database)
    with database.begin() as session:
        operations.succeed(session, lease, "out", {"tile": 256}, "trust")
    cancel(database, operation_id)
    operation = read(database, operation_id)
    assert (operation.state, operation.output_blob, operation.trust_blob) == ("succeeded", "out", "trust")
    assert operation.progress == 1.0


def test_a_cancelled_operation_whose_worker_was_lost_ends_as_cancelled(
    database: Database, make_operation: MakeOperation
) -> None:
    operation_id = make_operation()
    claim(database, lease_s=-1.0)
    cancel(database, operation_id)
    with database.begin() as session:
        assert operations.recover_expired(session, max_attempts=3) == {operation_id: "cancelled"}
    assert read(database, operation_id).state == "cancelled"


def test_an_unconfirmed_cancellation_is_enforced_after_its_grace_and_shuts_the_worker_out(
    database: Database, make_operation: MakeOperation
) -> None:
    operation_id = make_operation()
    lease = claim(database)
    cancel(database, operation_id)
    for grace_s, expected in ((60.0, []), (-1.0, [operation_id])):
        with database.begin() as session:
            assert operations.force_overdue(session, grace_s) == expected
    with pytest.raises(LeaseLost), database.begin() as session:
        operations.renew(session, lease, 60.0)
    assert read(database, operation_id).state == "cancelled"


def test_cancelling_a_batch_stops_what_is_unfinished_and_nothing_else(
    database: Database, make_operation: MakeOperation
) -> None:
    with database.begin() as session:
        session.add(batch := Batch(model="m", options={}))
    done, running, waiting = (make_operation(batch_id=batch.id, position=place, turn=place) for place in range(3))
    other = make_operation()
    with database.begin() as session:
        operations.succeed(session, claim(database), "out", {})
    claim(database)
    with database.begin() as session:
        operations.request_cancel_batch(session, batch.id)
    states = {operation_id: read(database, operation_id).state for operation_id in (done, running, waiting, other)}
    assert states == {done: "succeeded", running: "cancelling", waiting: "cancelled", other: "queued"}


@pytest.mark.parametrize("of_a_batch", [False, True])
def test_a_cancellation_is_not_lost_on_an_operation_that_is_given_back_in_this_moment(
    engine: Engine, database: Database, make_operation: MakeOperation, *, of_a_batch: bool
) -> None:
    with database.begin() as session:
        session.add(batch := Batch(model="m", options={}))
    operation_id = make_operation(batch_id=batch.id, position=0)
    lease = claim(database)

    def give_back() -> None:
        with database.begin() as session:
            operations.release(session, lease)

    with meanwhile(engine, "operations", give_back), database.begin() as session:
        if of_a_batch:
            operations.request_cancel_batch(session, batch.id)
        else:
            operations.request_cancel(session, operation_id)
    assert read(database, operation_id).state == "cancelled"


# Progress and choice of model


def test_progress_and_the_chosen_model_are_published_while_the_operation_runs(
    database: Database, make_operation: MakeOperation
) -> None:
    operation_id = make_operation()
    assert read(database, operation_id).started_at is None
    lease = claim(database)
    with database.begin() as session:
        operations.resolve(session, lease, "scanner", 7)
        operations.report_progress(session, lease, 0.25)
    operation = read(database, operation_id)
    assert (operation.model_name, operation.model_version, operation.progress) == ("scanner", 7, 0.25)
    assert operation.started_at is not None
    with database.begin() as session:
        operations.release(session, lease)
    assert read(database, operation_id).progress == 0.0


# Turns


def test_the_least_turn_is_claimed_first(database: Database, make_operation: MakeOperation) -> None:
    made = {turn: make_operation(turn=turn) for turn in (30.0, 10.0, 20.0)}
    assert [claim(database).operation_id for _ in made] == [made[10.0], made[20.0], made[30.0]]


MEGAPIXEL, SMALL = 1_000_000, 256 * 256


@pytest.mark.parametrize("pace", [PACE, 15 * PACE], ids=["as slow as assumed", "faster"])
@given(arrivals=lists(floats(0.0, 40_000.0), min_size=1, max_size=20).map(sorted))
def test_a_small_image_waits_for_no_more_of_a_batch_than_what_is_at_work(pace: float, arrivals: list[float]) -> None:
    """A worker serves by turn a batch of a thousand megapixels, and small images that come meanwhile."""
    queue = [(turn, MEGAPIXEL, 0.0) for turn in turns([MEGAPIXEL] * 1000, now=0.0)]
    coming, clock = deque(arrivals), 0.0
    while queue or coming:
        if not queue:
            clock = max(clock, coming[0])
        while coming and coming[0] <= clock:
            heappush(queue, (next(turns([SMALL], now=coming[0])), SMALL, coming.popleft()))
        _turn, pixels, arrived = heappop(queue)
        if pixels == SMALL:
            small_ones_before = sum(other <= arrived for other in arrivals) - 1
            assert clock - arrived <= (MEGAPIXEL + small_ones_before * SMALL) / pace + 1e-6
        clock += pixels / pace


def test_batches_that_come_together_take_turns() -> None:
    first = [(turn, "first") for turn in turns([MEGAPIXEL] * 5, now=0.0)]
    second = [(turn, "second") for turn in turns([MEGAPIXEL] * 3, now=0.001)]
    order = [name for _, name in sorted(first + second)]
    assert order == ["first", "second"] * 3 + ["first"] * 2


def test_a_large_image_gets_its_turn_under_a_load_of_small_ones_that_never_ends() -> None:
    (large,) = turns([100 * MEGAPIXEL], now=0.0)
    (after_two_hours,) = turns([SMALL], now=7200.0)
    assert large < after_two_hours


def test_an_ensemble_counts_eightfold_and_a_scale_by_its_square() -> None:
    assert work(37 * 31) == 37 * 31
    assert work(37 * 31, scale=2, ensemble=True) == 32 * 37 * 31

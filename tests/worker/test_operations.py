"""The life of one image through a model, on SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core import operations
from app.core.errors import LeaseLost
from app.core.operations import OperationLease
from app.core.tables import Operation

Database = sessionmaker[Session]


@pytest.fixture
def make_operation(database: Database) -> Callable[[], str]:
    def make() -> str:
        operation = Operation(model_name="m", model_version=1, input_blob="b", options={"output": "png"})
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


def test_many_workers_claim_each_operation_once(database: Database, make_operation: Callable[[], str]) -> None:
    made = {make_operation() for _ in range(12)}
    start = threading.Barrier(6)

    def work(_: int) -> list[str]:
        start.wait()
        mine = []
        while True:
            with database.begin() as session:
                lease = operations.claim_next(session, 60.0)
            if lease is None:
                return mine
            mine.append(lease.operation_id)

    with ThreadPoolExecutor(6) as pool:
        claimed = [operation_id for mine in pool.map(work, range(6)) for operation_id in mine]
    assert sorted(claimed) == sorted(made)


@pytest.mark.parametrize(
    "write",
    [
        lambda session, lease: operations.renew(session, lease, 60.0),
        lambda session, lease: operations.succeed(session, lease, "out", {}),
        lambda session, lease: operations.fail(session, lease, "internal", "no"),
        operations.release,
    ],
    ids=["renew", "succeed", "fail", "release"],
)
def test_a_worker_that_lost_its_lease_changes_nothing(
    database: Database,
    make_operation: Callable[[], str],
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


def test_an_operation_fails_after_its_last_attempt(database: Database, make_operation: Callable[[], str]) -> None:
    operation_id = make_operation()
    for expected in ([], [], [operation_id]):
        claim(database, lease_s=-1.0)
        with database.begin() as session:
            assert operations.recover_expired(session, max_attempts=3) == expected
    operation = read(database, operation_id)
    assert (operation.state, operation.error_code) == ("failed", "worker-lost")
    assert operation.finished_at is not None


def test_a_live_operation_is_left_alone(database: Database, make_operation: Callable[[], str]) -> None:
    operation_id = make_operation()
    claim(database)
    with database.begin() as session:
        assert operations.recover_expired(session, max_attempts=1) == []
    assert read(database, operation_id).state == "running"


def test_an_operation_given_back_does_not_count_the_attempt(
    database: Database, make_operation: Callable[[], str]
) -> None:
    operation_id = make_operation()
    lease = claim(database)
    with database.begin() as session:
        operations.release(session, lease)
        assert operations.waiting(session) == 1
    operation = read(database, operation_id)
    assert (operation.state, operation.attempt) == ("queued", 0)

"""Ages are told by the database's clock: one worker's clock that is an hour off removes nothing and doubles nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.core import idempotency, operations, tables
from app.core.errors import RequestInFlight
from app.core.retention import expire_idempotency_keys, expire_operations
from app.core.tables import IdempotencyKey, Operation, utc_ago

HOUR = timedelta(hours=1)


@contextmanager
def clock_off_by(error: timedelta) -> Iterator[None]:
    """This process's clock is wrong; the database's is not."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "datetime", Wrong)
        assert abs(tables.utc_now() - datetime.now(UTC) - error) < timedelta(seconds=10)
        yield


def restore_an_image(database: sessionmaker[Session]) -> None:
    with database.begin() as session:
        session.add(Operation(model_name="m", model_version=1, input_blob="b", options={}))
    with database.begin() as session:
        lease = operations.claim_next(session, 60.0)
        assert lease is not None
        operations.succeed(session, lease, "restored", {})


def held(database: sessionmaker[Session], table: type[tables.Table]) -> int:
    with database() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("error", [-HOUR, HOUR], ids=["behind", "ahead"])
def test_a_fresh_result_stays_whoever_finished_it_and_whoever_sweeps(
    database: sessionmaker[Session], error: timedelta
) -> None:
    with clock_off_by(error):
        restore_an_image(database)
    restore_an_image(database)
    for sweeper in (timedelta(), error):
        with clock_off_by(sweeper), database.begin() as session:
            expire_operations(session, 1_800.0)
        assert held(database, Operation) == 2
    with database.begin() as session:
        expire_operations(session, -60.0)
    assert held(database, Operation) == 0


@pytest.mark.parametrize("error", [-HOUR, HOUR], ids=["behind", "ahead"])
def test_a_request_that_is_being_answered_is_not_begun_again_by_an_api_whose_clock_is_off(
    database: sessionmaker[Session], error: timedelta
) -> None:
    with clock_off_by(error), database.begin() as session:
        assert idempotency.begin(session, "k", "f", 120.0).made_id is None
    with pytest.raises(RequestInFlight), database.begin() as session:
        idempotency.begin(session, "k", "f", 120.0)
    with clock_off_by(error), pytest.raises(RequestInFlight), database.begin() as session:
        idempotency.begin(session, "k", "f", 120.0)
    with database.begin() as session:
        expire_idempotency_keys(session, 1_800.0)
        assert idempotency.begin(session, "k", "f", -60.0).made_id is None  # Left by a process that died.
    assert held(database, IdempotencyKey) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.25, 90.0, 7 * 86_400.0, -60.0])
def test_the_databases_clock_tells_the_moment_so_many_seconds_ago(
    database: sessionmaker[Session], seconds: float
) -> None:
    with database() as session:
        told = session.scalars(select(utc_ago(seconds))).one()
    assert abs(told + timedelta(seconds=seconds) - datetime.now(UTC)) < timedelta(seconds=20)

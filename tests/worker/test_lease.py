"""The heartbeat: what it survives, and how it tells the work to stop."""

import multiprocessing
import time

import pytest
from sqlalchemy.exc import DBAPIError, InternalError, NotSupportedError, OperationalError

from app.core.errors import JobCancelled, LeaseLost
from tests.servers import eventually
from worker.lease import Heartbeat, ShutdownFlag


def test_it_renews_while_the_work_goes_on_and_not_after() -> None:
    renewals = []
    with Heartbeat(lambda: renewals.append(time.monotonic()), every_s=0.01) as heartbeat:
        eventually(lambda: len(renewals) >= 3)
        heartbeat.check()
    seen = len(renewals)
    time.sleep(0.05)
    assert len(renewals) == seen


@pytest.mark.parametrize("end", [JobCancelled("job"), LeaseLost("job")], ids=["cancelled", "lost"])
def test_the_end_of_the_lease_is_raised_where_the_work_checks(end: Exception) -> None:
    def renew() -> None:
        raise end

    def ended() -> bool:
        try:
            heartbeat.check()
        except type(end):
            return True
        return False

    with Heartbeat(renew, every_s=0.01) as heartbeat:
        eventually(ended)


def test_it_looks_for_the_end_more_often_than_it_renews() -> None:
    renewals, looks = [], []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise JobCancelled("job")

    def cancelled() -> bool:
        try:
            heartbeat.check()
        except JobCancelled:
            return True
        return False

    with Heartbeat(lambda: renewals.append(1), 60.0, look) as heartbeat:
        eventually(cancelled, timeout_s=5)
    assert (len(looks), renewals) == (2, [])


@pytest.mark.parametrize("kind", [OperationalError, NotSupportedError, InternalError])
def test_a_database_that_is_away_or_out_of_sorts_for_a_while_ends_nothing(kind: type[DBAPIError]) -> None:
    calls = []

    def renew() -> None:
        calls.append(1)
        if len(calls) < 4:
            raise kind("renew", None, Exception("the database is away"))

    with Heartbeat(renew, every_s=0.01) as heartbeat:
        eventually(lambda: len(calls) >= 6)
        heartbeat.check()


def test_the_shutdown_flag_reaches_children_that_were_forked_before() -> None:
    flag = ShutdownFlag()

    def wait() -> None:
        eventually(flag.is_set)

    child = multiprocessing.get_context("fork").Process(target=wait)
    child.start()
    assert not flag.is_set()
    flag.set()
    child.join(5)
    assert child.exitcode == 0

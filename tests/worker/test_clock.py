"""Rounds of housekeeping come steadily; what workers write and compare as a time is the database's or the disk's."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.core.queue import HOUSEKEEPING_QUEUE, RECONCILE, SWEEP, celery_app
from app.core.settings import Settings
from app.core.tables import Operation, utc_ago
from benchmarks.chaos import clock
from worker.clock import MOST_WAITING, SteadyScheduler
from worker.service import Service

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scheduler(valkey_url: str) -> Iterator[SteadyScheduler]:
    with Redis.from_url(valkey_url) as broker:
        broker.delete(HOUSEKEEPING_QUEUE)
    app = celery_app(valkey_url)
    app.conf.beat_schedule = {
        RECONCILE: {"task": RECONCILE, "schedule": 0.2},
        SWEEP: {"task": SWEEP, "schedule": 60.0},
    }
    yield SteadyScheduler(app=app)
    app.close()


def depth(scheduler: SteadyScheduler) -> int:
    return scheduler._queue.depth(HOUSEKEEPING_QUEUE)


def test_every_round_is_sent_at_once_and_then_at_its_own_pace(scheduler: SteadyScheduler) -> None:
    until_next = scheduler.tick()
    assert depth(scheduler) == 2
    assert 0.0 < until_next <= 0.2
    scheduler.tick()
    assert depth(scheduler) == 2
    time.sleep(0.21)
    scheduler.tick()
    assert depth(scheduler) == 3


def test_rounds_that_nobody_serves_do_not_pile_up(scheduler: SteadyScheduler) -> None:
    for _ in range(3 * MOST_WAITING):
        scheduler._due.clear()
        scheduler.tick()
    assert MOST_WAITING <= depth(scheduler) <= MOST_WAITING + 1


def test_the_database_tells_the_time_as_it_stores_it(database: sessionmaker[Session]) -> None:
    operation = Operation(options={}, finished_at=datetime.now(UTC) - timedelta(seconds=30))
    with database.begin() as session:
        session.add(operation)
    with database() as session:
        now = session.scalar(select(utc_ago()))
        assert now is not None
        assert abs(now - datetime.now(UTC)) < timedelta(seconds=2)
        ended_before = select(Operation.id).where(Operation.finished_at < utc_ago(20.0))
        assert session.scalar(ended_before) == operation.id
        assert session.scalar(ended_before.where(Operation.finished_at < utc_ago(40.0))) is None


@pytest.mark.parametrize("hours", [1, -1])
def test_a_worker_with_a_wrong_clock_removes_nothing_fresh(
    hours: int, service_settings: Settings, tmp_path: Path
) -> None:
    service = Service.open(service_settings)
    fresh = service.storage.put(io.BytesIO(b"stored a moment ago, and no row names it yet"))
    with service.sessions.begin() as session:
        session.add(Operation(id="op_0", state="succeeded", options={}, finished_at=utc_ago()))
    wrong = clock.skewed(tmp_path, "worker")
    clock.shift(tmp_path, "worker", hours * 3600)
    sweep = (
        "import sys, time; from app.core.settings import Settings; from worker import reconciler;"
        "from worker.service import Service;"
        "service = Service.open(Settings()); reconciler.sweep(service); service.close(); print(time.time())"
    )
    told = {
        "DRTL_DATA_DIR": str(tmp_path),
        "DRTL_DATABASE_URL": service_settings.database_url,
        "DRTL_BROKER_URL": service_settings.broker_url,
        "DRTL_ORPHAN_GRACE_S": "1800",
        "DRTL_RESULT_RETENTION_S": "1800",
    }
    command = [sys.executable, "-c", sweep]
    swept = subprocess.run(command, env=os.environ | wrong | told, cwd=ROOT, check=True, capture_output=True, text=True)
    assert abs(float(swept.stdout) - time.time() - hours * 3600) < 60  # Its clock was wrong.
    with service.storage.open(fresh) as file:
        assert file.read().startswith(b"stored a moment ago")
    if service.engine.dialect.name == "postgresql":  # SQLite's clock is that of whoever asks: of the one machine.
        with service.read_sessions() as session:
            assert session.get(Operation, "op_0") is not None
    service.close()


def test_a_message_that_comes_again_is_known(service_settings: Settings) -> None:
    service = Service.open(service_settings)
    service.queue.redis.flushdb()
    assert service.queue.is_first_delivery("message")
    assert not service.queue.is_first_delivery("message")
    assert service.queue.is_first_delivery("another")
    service.close()


def test_a_message_is_known_for_longer_than_it_takes_to_be_sent_again(service_settings: Settings) -> None:
    service = Service.open(service_settings)
    service.queue.redis.flushdb()
    assert service.queue.is_first_delivery("message")
    known_s = service.queue.redis.ttl("drtl:delivered:message")
    again_s = service.queue.celery.conf.broker_transport_options["visibility_timeout"]
    days_of_training_s = 3 * 86_400
    assert known_s > again_s + days_of_training_s  # Whoever gets it again may be busy.
    service.close()


def test_without_a_broker_every_message_counts_as_new(service_settings: Settings) -> None:
    service = Service.open(service_settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"}))
    assert service.queue.is_first_delivery("message")
    service.close()

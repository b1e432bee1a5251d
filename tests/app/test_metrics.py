"""`/metrics` of a running service: its own requests, its rows, and what workers elsewhere have counted."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.api.metrics import Metrics
from app.core import telemetry
from app.core.census import CensusTaker
from app.core.database import read_sessions
from app.core.settings import Settings
from app.core.tables import Dataset, Job, Operation, utc_now
from app.core.telemetry import Numbers
from app.main import create_app
from benchmarks.chaos import clock
from tests.app.conftest import connected

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def redis(api_settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(api_settings.broker_url) as client:
        client.delete(telemetry.TOTALS, telemetry.READINGS)
        yield client


def test_requests_are_counted_and_timed_by_template_and_never_by_what_the_client_wrote(client: httpx.Client) -> None:
    labels = {"route": "/v1/jobs/{job_id}", "method": "GET"}
    key = ("drtl_requests_total", tuple(sorted({**labels, "status": "404"}.items())))
    before = scrape(client).get(key, 0.0)
    for number in range(3):
        client.get(f"/v1/jobs/job_hush{number}")
    client.get("/made-up-by-a-client")
    client.request("BREW", "/v1/jobs")
    after = scrape(client)
    assert after[key] - before == 3
    assert of(after, "drtl_request_seconds_count", **labels) >= 3
    assert of(after, "drtl_request_seconds_bucket", le="+Inf", **labels) == of(
        after, "drtl_request_seconds_count", **labels
    )
    values = {value for _, pairs in after for _, value in pairs}
    assert not any("hush" in value or "made-up" in value or "BREW" in value for value in values)
    assert of(after, "drtl_requests_total", route="other", method="GET", status="404") >= 1


def test_every_state_has_a_number_and_what_waits_has_an_age(
    client: httpx.Client, rows: sessionmaker[Session], redis: Redis
) -> None:
    old = utc_now() - timedelta(seconds=600)
    with rows.begin() as session:
        session.add(Dataset(id="ds_m", scale=1, pairs=[]))
        session.flush()
        session.add(Job(name="a", dataset_id="ds_m", options={}, created_at=old, work_s=90.0))
        session.add(Job(name="b", dataset_id="ds_m", options={}, state="running", phase="fine_tuning"))
        session.add(Operation(options={}, created_at=old))
    time.sleep(1.1)  # The census is kept for a second.
    samples = scrape(client)
    assert of(samples, "drtl_queue_depth", kind="job") == 1
    assert 600 <= of(samples, "drtl_queue_oldest_seconds", kind="job") < 700
    assert 600 <= of(samples, "drtl_queue_oldest_seconds", kind="operation") < 700
    assert of(samples, "drtl_queue_work_seconds") == 90
    assert of(samples, "drtl_jobs", state="running", phase="fine_tuning") == 1
    assert of(samples, "drtl_jobs", state="failed", phase="") == 0
    assert of(samples, "drtl_operations", state="queued") == 1
    assert of(samples, "drtl_operations", state="succeeded") == 0
    assert of(samples, "drtl_up", part="database") == of(samples, "drtl_up", part="broker") == 1


def test_what_several_workers_count_is_added_up_and_outlives_them(client: httpx.Client, redis: Redis) -> None:
    workers = [Numbers(redis), Numbers(redis)]

    def work(numbers: Numbers) -> None:
        for _ in range(500):
            numbers.add(telemetry.TRAINING_STEPS)
            numbers.observe(telemetry.TILE_BATCH_SIZE, 3)
        numbers.add(telemetry.LEASES_LOST, "job")
        numbers.observe(telemetry.TILE_BATCH_SIZE, 33)

    threads = [threading.Thread(target=work, args=(numbers,)) for numbers in workers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for numbers in workers:
        numbers.close()
    samples = scrape(client)
    assert of(samples, "drtl_training_steps_total") == 2000
    assert of(samples, "drtl_leases_lost_total", kind="job") == 4
    assert of(samples, "drtl_leases_lost_total", kind="operation") == 0
    assert of(samples, "drtl_tile_batch_size_bucket", le="2") == 0
    assert of(samples, "drtl_tile_batch_size_bucket", le="4") == 2000
    assert of(samples, "drtl_tile_batch_size_bucket", le="32") == 2000
    assert of(samples, "drtl_tile_batch_size_count") == 2004
    assert of(samples, "drtl_tile_batch_size_sum") == 2000 * 3 + 4 * 33


def test_readings_are_added_up_over_processes_and_those_of_ended_processes_fade(
    client: httpx.Client, redis: Redis
) -> None:
    numbers = Numbers(redis)
    numbers.watch(telemetry.GPU_MEMORY, "training", lambda: 5.0)
    numbers.put(telemetry.BLOBS, 7)
    numbers.close()
    redis.hset(telemetry.READINGS, "drtl_gpu_memory_bytes|training|elsewhere:1", f"[6.0, {time.time()}]")
    redis.hset(telemetry.READINGS, "drtl_gpu_memory_bytes|training|ended:1", "[9.0, 1.0]")
    samples = scrape(client)
    assert of(samples, "drtl_gpu_memory_bytes", worker="training") == 11
    assert of(samples, "drtl_blobs") == 7
    assert not redis.hexists(telemetry.READINGS, "drtl_gpu_memory_bytes|training|ended:1")


@pytest.mark.parametrize("hours", [1, -1])
def test_readings_are_as_old_as_the_broker_says_whatever_the_clocks_of_those_who_state_and_read_them(
    redis: Redis, api_settings: Settings, tmp_path: Path, hours: int
) -> None:
    wrong = clock.skewed(tmp_path, "worker")
    clock.shift(tmp_path, "worker", hours * 3600)
    here = Numbers(redis)
    here.watch(telemetry.GPU_MEMORY, "inference", lambda: 6.0)
    here.close()
    elsewhere = (
        "import sys, time; from redis import Redis; from app.core import telemetry;"
        "redis = Redis.from_url(sys.argv[1]); numbers = telemetry.Numbers(redis);"
        "numbers.watch(telemetry.GPU_MEMORY, 'training', lambda: 5.0); numbers.close();"
        "print(time.time(), *sorted(telemetry.read_readings(redis).values()))"
    )
    command = [sys.executable, "-c", elsewhere, api_settings.broker_url]
    told = subprocess.run(command, env=os.environ | wrong, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    its_time, *read_there = map(float, told.split())
    assert abs(its_time - time.time() - hours * 3600) < 60  # Its clock was wrong.
    assert read_there == sorted(telemetry.read_readings(redis).values()) == [5.0, 6.0]
    stated = [json.loads(document)[1] for document in redis.hvals(telemetry.READINGS)]
    assert stated == pytest.approx([time.time()] * 2, abs=60)  # So the other's fades in time, too.


def test_numbers_counted_while_the_broker_is_away_arrive_once_it_is_back(redis: Redis) -> None:
    away = Redis(port=9)
    numbers = Numbers(away)
    numbers.add(telemetry.TRAINING_STEPS, amount=4)
    numbers.flush()
    numbers._redis = redis
    numbers.add(telemetry.TRAINING_STEPS)
    numbers.close()
    assert telemetry.read_totals(redis) == {"drtl_training_steps|": 5.0}


def test_a_service_without_database_and_broker_still_answers_and_says_so(api_settings: Settings) -> None:
    gone = {"database_url": "postgresql+psycopg://nobody@127.0.0.1:9/none", "broker_url": "redis://127.0.0.1:9/0"}
    with connected(create_app(api_settings.model_copy(update=gone))) as client:
        samples = scrape(client)
    assert of(samples, "drtl_up", part="database") == of(samples, "drtl_up", part="broker") == 0


def test_the_census_holds_on_both_databases(engine: Engine, database: sessionmaker[Session]) -> None:
    with database.begin() as session:
        session.add(Operation(options={}, state="running"))
    census = CensusTaker(read_sessions(engine)).take()
    assert census.operations["running"] == 1
    assert census.jobs["queued", ""] == 0
    assert census.oldest_operation_s == 0.0


def test_many_scrapes_at_once_ask_the_database_once(database: sessionmaker[Session]) -> None:
    asked = 0

    def counting() -> Session:
        nonlocal asked
        asked += 1
        return database()

    taker = CensusTaker(counting)  # type: ignore[arg-type]  # A maker of sessions, without its options.
    for _ in range(50):
        taker.take()
    assert asked == 1


def test_noting_a_request_costs_less_than_a_tenth_of_a_millisecond() -> None:
    metrics = Metrics(lambda: pytest.fail("nobody scrapes"))
    costs = []
    for _ in range(20):
        began = time.process_time()
        for _ in range(100):
            metrics.note("/v1/jobs/{job_id}", "GET", 200, 0.01)
        costs.append((time.process_time() - began) / 100)
    assert statistics.median(costs) < 1e-4


def test_the_metrics_of_two_services_in_one_process_are_their_own(api_settings: Settings) -> None:
    one, other = (create_app(api_settings).state.metrics for _ in range(2))
    one.note("/", "GET", 200, 0.1)
    counts = [metrics.requests.labels("/", "GET", "200")._value.get() for metrics in (one, other)]
    assert counts == [1.0, 0.0]

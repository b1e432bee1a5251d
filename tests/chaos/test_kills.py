"""Every process of the service is killed in the middle of a job; each time the job ends right, once."""

import itertools
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from app.write_lock import LOCKS
from tests.servers import RunningService, embedded_service, eventually, is_alive, until_gone

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="the kernel's process table is read")

STEPS = 40
BETWEEN_CHECKPOINTS = 20  # Steps, at most, on a machine that is busy.


def assert_succeeded_once(service: RunningService, job_id: str, name: str, attempt: int) -> None:
    job = service.wait_for_end(job_id)
    assert job["state"] == "succeeded", job["error"]
    assert job["attempt"] == attempt
    assert [candidate["steps"] for candidate in job["metrics"]["candidates"]] == [STEPS]
    versions = service.http.get(f"/v1/models/{name}").raise_for_status().json()["versions"]
    assert len(versions) == 1
    kinds = [event["kind"] for event in service.events(job_id)]
    assert kinds.count("succeeded") == 1
    assert kinds[-1] == "succeeded"


def steps_by_attempt(events: list[dict[str, Any]]) -> list[list[int]]:
    """The training steps that each attempt reported."""
    attempts: list[list[int]] = []
    for event in events:
        if event["kind"] == "started":
            attempts.append([])
        elif "step" in event["payload"]:
            attempts[-1].append(event["payload"]["step"])
    return attempts


def assert_resumed(service: RunningService, job_id: str) -> None:
    """Later attempts went on near where the one before was interrupted, not at the first step."""
    attempts = steps_by_attempt(service.events(job_id))
    assert len(attempts) > 1
    for before, after in itertools.pairwise(attempts):
        assert after[0] > 2
        assert after[0] >= before[-1] - BETWEEN_CHECKPOINTS


def test_a_job_goes_on_from_its_checkpoint_when_its_child_and_then_its_worker_are_killed(
    service: RunningService,
) -> None:
    job_id = service.post_job("killed", finetune_steps=STEPS)
    service.wait_for_step(job_id, 15)
    os.kill(service.training_child(), signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: service.job(job_id)["attempt"] == 2, what="the second attempt")
    assert time.monotonic() - killed < 5.0  # The parent saw it, so nobody waited for the lease to run out.

    service.wait_for_step(job_id, 28)
    parent, child = service.pid("worker-training"), service.training_child()
    os.kill(parent, signal.SIGKILL)
    eventually(lambda: not is_alive(child), timeout_s=2, what="the end of the orphan")
    assert_succeeded_once(service, job_id, "killed", attempt=3)
    assert_resumed(service, job_id)
    assert service.pid("worker-training") != parent


@pytest.mark.skipif(not LOCKS.is_file(), reason="the kernel's table of locks is read")
def test_a_child_that_is_stopped_inside_a_transaction_holds_nobody_up(service: RunningService) -> None:
    job_id = service.post_job("frozen", finetune_steps=STEPS)
    service.wait_for_step(job_id, 15)
    service.stop(service.training_child(), inside=True)
    stopped = time.monotonic()
    other = service.post_job("behind", finetune_steps=1)  # Needs the database's write lock.
    assert time.monotonic() - stopped < 5.0
    assert_succeeded_once(service, job_id, "frozen", attempt=2)
    assert_resumed(service, job_id)
    assert service.wait_for_end(other)["state"] == "succeeded"


def test_a_worker_that_sleeps_through_its_lease_cannot_disturb_its_successor(service: RunningService) -> None:
    job_id = service.post_job("sleeper", finetune_steps=STEPS)
    service.wait_for_step(job_id, 15)
    child = service.training_child()
    service.stop(child, inside=False)
    eventually(lambda: service.job(job_id)["state"] == "queued", timeout_s=15, what="the recovery")
    os.kill(child, signal.SIGCONT)
    assert_succeeded_once(service, job_id, "sleeper", attempt=2)
    assert_resumed(service, job_id)
    assert "the lease was lost" in service.log("worker-training")


def test_a_job_does_not_notice_that_api_and_broker_are_killed(service: RunningService) -> None:
    job_id = service.post_job("undisturbed", finetune_steps=STEPS)
    service.wait_for_step(job_id, 2)
    url, api, broker = service.url, service.pid("api"), service.pid("valkey")
    os.kill(api, signal.SIGKILL)
    os.kill(broker, signal.SIGKILL)
    assert_succeeded_once(service, job_id, "undisturbed", attempt=1)
    assert service.url == url
    assert service.pid("api") != api
    assert service.pid("valkey") != broker
    following = service.post_job("after", finetune_steps=1)  # The workers listen to the new broker.
    assert service.wait_for_end(following)["state"] == "succeeded"


def test_a_broker_that_comes_back_empty_loses_no_job(service: RunningService) -> None:
    running = service.post_job("running", finetune_steps=STEPS)
    waiting = service.post_job("waiting", finetune_steps=STEPS)
    service.wait_for_step(running, 2)
    shutil.rmtree(service.data_dir / "valkey" / "appendonlydir")
    os.kill(service.pid("valkey"), signal.SIGKILL)
    assert_succeeded_once(service, running, "running", attempt=1)
    assert_succeeded_once(service, waiting, "waiting", attempt=1)


@pytest.mark.timeout(300)  # It starts the service three times.
def test_nothing_outlives_a_killed_supervisor_and_the_next_one_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data_dir = tmp_path_factory.mktemp("killed") / "data"
    with embedded_service(data_dir) as service:
        job_id = service.post_job("supervisor", finetune_steps=STEPS)
        service.wait_for_step(job_id, 15)
        everybody = [*service.announced()["processes"].values(), service.training_child()]
        service.process.kill()
        for pid in everybody:
            until_gone(pid, timeout_s=3)
    with embedded_service(data_dir) as service:

        def steps_of_the_next() -> list[int]:
            return next(iter(steps_by_attempt(service.events(job_id))[1:]), [])

        # As long as `wait_for_step` waits.
        eventually(steps_of_the_next, timeout_s=60, what="the next attempt's steps")
        assert_resumed(service, job_id)
        child = service.training_child()
        began = time.monotonic()
        service.process.terminate()  # In order this time, and in the middle of the job again.
        assert service.process.wait(15) == 0
        assert time.monotonic() - began < 11
        assert not is_alive(child)
        assert not (data_dir / "service.json").exists()
    with embedded_service(data_dir) as service:
        assert_succeeded_once(service, job_id, "supervisor", attempt=2)  # Being stopped is not an attempt lost.
        assert_resumed(service, job_id)

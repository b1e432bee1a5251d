"""A training on several devices over the real service: what its processes see, and what happens when one dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RunningService, children_of, embedded_service, eventually, is_alive

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="the kernel's process table is read")

STEPS = 24


@pytest.fixture(scope="module")
def crewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service with two processes a training, on devices that this machine need not have: it computes on the CPU."""
    folder = tmp_path_factory.mktemp("crewed")
    (folder / "tmp").mkdir()
    environment = {"DRTL_TRAINING_DEVICES": "2", "DRTL_DEVICES": "5,6", "TMPDIR": str(folder / "tmp")}
    with embedded_service(folder / "data", **environment) as running:
        yield running


def helper_of(service: RunningService) -> int:
    child = service.training_child()
    (helper,) = eventually(lambda: children_of(child), what="a helper")
    return helper


def test_a_cancelled_job_takes_its_helpers_along(crewed: RunningService) -> None:
    job_id = crewed.post_job("never", finetune_steps=100_000)
    crewed.wait_for_step(job_id, 1)
    helper = helper_of(crewed)
    crewed.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    assert crewed.wait_for_end(job_id)["state"] == "cancelled"
    eventually(lambda: not is_alive(helper), timeout_s=5, what="the helper's end")


def test_a_job_whose_helper_dies_is_resumed_by_another_crew(crewed: RunningService) -> None:
    job_id = crewed.post_job("crewed", finetune_steps=STEPS)
    crewed.wait_for_step(job_id, 8)
    helper = helper_of(crewed)
    environment = Path(f"/proc/{helper}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=5,6" in environment
    os.kill(helper, signal.SIGKILL)
    job = crewed.wait_for_end(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
    started = [event["id"] for event in crewed.events(job_id) if event["kind"] == "started"]
    steps = [
        event["payload"]["step"]
        for event in crewed.events(job_id)
        if event["id"] > started[1] and "step" in event["payload"]
    ]
    assert steps[0] > 2, "it went on from its checkpoint"
    temporary = crewed.data_dir.parent / "tmp"  # The crew packs up once its job has ended.
    eventually(lambda: not list(temporary.glob("drtl-crew-*")), timeout_s=15, what="an empty folder")


def test_a_training_child_that_is_killed_takes_its_helpers_along(crewed: RunningService) -> None:
    job_id = crewed.post_job("killed", finetune_steps=100_000)
    crewed.wait_for_step(job_id, 1)
    helper = helper_of(crewed)
    os.kill(crewed.training_child(), signal.SIGKILL)
    eventually(lambda: not is_alive(helper), timeout_s=5, what="the helper's end")
    crewed.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    assert crewed.wait_for_end(job_id)["state"] == "cancelled"

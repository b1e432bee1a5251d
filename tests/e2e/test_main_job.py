"""The main job over HTTP on the real embedded service: pairs in, relation graph out, a model that restores an image."""

import io
import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from app.core.tables import PHASES
from tests.images import image_pairs
from tests.servers import RunningService, eventually


@pytest.fixture(scope="module")
def job_id(service: RunningService) -> str:
    """A job of the default scheme with few steps."""
    return service.post_job("noisy-camera", scheme="auto", transfer_steps=3, finetune_steps=9)


def test_the_graph_is_there_while_the_job_still_trains(service: RunningService, job_id: str) -> None:
    early = service.http.get(f"/v1/jobs/{job_id}/graph")
    assert (early.status_code, "retry-after" in early.headers) in {(409, True), (200, False)}

    def graph_of_running_job() -> dict[str, object] | None:
        answer = service.http.get(f"/v1/jobs/{job_id}/graph")
        return answer.json() if answer.status_code == 200 else None

    graph = eventually(graph_of_running_job, timeout_s=30, what="the graph")
    assert service.job(job_id)["state"] == "running"
    loaded = nx.node_link_graph(graph)
    assert "target" in loaded
    auxiliary = [node for node in loaded.nodes.values() if node["kind"] == "auxiliary"]
    assert len(loaded) == len(auxiliary) + 1
    assert sum(node["selected"] for node in auxiliary) == 7  # The paper's.
    svg = service.http.get(f"/v1/jobs/{job_id}/graph", headers={"Accept": "image/svg+xml"})
    assert svg.headers["content-type"].startswith("image/svg+xml")


def test_the_job_succeeds_through_all_phases_in_order(service: RunningService, job_id: str) -> None:
    job = service.wait_for_end(job_id)
    assert job["state"] == "succeeded", job["error"]
    assert job["attempt"] == 1
    assert job["model"]["reference"] == "noisy-camera@1"
    assert job["metrics"]["result"]["psnr"] > 0
    phases = [event["payload"]["phase"] for event in service.events(job_id) if event["kind"] == "progress"]
    assert list(dict.fromkeys(phases)) == list(PHASES)
    progress = [event["payload"]["progress"] for event in service.events(job_id) if event["kind"] == "progress"]
    assert progress == sorted(progress)


def test_the_registered_model_restores_an_image_it_never_saw(service: RunningService, job_id: str) -> None:
    service.wait_for_end(job_id)
    pixels = np.random.default_rng(1).integers(0, 256, (31, 37, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    answer = service.http.post(
        "/v1/models/noisy-camera@1/super-resolve", content=file.getvalue(), headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-drtl-model"] == "noisy-camera@1"
    restored = Image.open(io.BytesIO(answer.content))
    assert (restored.format, restored.size) == ("PNG", (37, 31))
    jpeg = service.http.post(
        "/v1/models/noisy-camera@1/super-resolve",
        content=file.getvalue(),
        headers={"Content-Type": "image/png", "Accept": "image/jpeg"},
    )
    assert Image.open(io.BytesIO(jpeg.content)).format == "JPEG"


def test_the_weights_carry_their_card(service: RunningService, job_id: str, tmp_path: Path) -> None:
    job = service.wait_for_end(job_id)
    card = service.http.get("/v1/models/noisy-camera/versions/1").raise_for_status().json()["card"]
    assert card["dataset"]["id"] == job["dataset_id"]
    assert len(card["dataset"]["sha256"]) == 6
    path = tmp_path / "model.safetensors"
    path.write_bytes(service.http.get("/v1/models/noisy-camera/versions/1/weights").raise_for_status().content)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["card"])["backbone"] == "vdsr"


def test_a_job_that_is_cancelled_over_http_stops_soon_and_the_next_one_runs(service: RunningService) -> None:
    job_id = service.post_job("never", finetune_steps=100_000)
    service.wait_for_step(job_id, 2)
    child = service.training_child()
    assert service.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert service.wait_for_end(job_id, timeout_s=10)["state"] == "cancelled"
    eventually(lambda: service.training_child() != child, what="a fresh child")
    following = service.post_job("next", finetune_steps=2)
    assert service.wait_for_end(following)["state"] == "succeeded"
    assert service.http.get("/v1/models/never").status_code == 404


def test_pairs_that_cannot_be_trained_on_are_refused_and_nothing_runs(service: RunningService) -> None:
    name, clean, _ = image_pairs(1)[0]
    files = [("clean", (f"{name}.png", clean)), ("distorted", (f"{name}.png", b"no image"))]
    answer = service.http.post("/v1/jobs", data={"name": "refused"}, files=files)
    assert answer.status_code in {415, 422}
    assert all(job["name"] != "refused" for job in service.http.get("/v1/jobs").json()["items"])

"""The whole service with its blobs in a bucket, whose server dies and comes back while there is work."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.images import image_pairs
from tests.s3_server import BUCKET, CREDENTIALS, S3Server
from tests.servers import RunningService, embedded_service, eventually

ROOT = Path(__file__).parents[2]
BLOB_URL = f"s3://{BUCKET}/service"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def service(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service") / "data"
    with embedded_service(folder, DRTL_BLOB_URL=BLOB_URL, **s3.environment) as running:
        yield running


def doctor(service: RunningService, s3: S3Server) -> dict[str, dict[str, str]]:
    """What `drtl doctor --deep` says, by the name of the check."""
    environment = os.environ | s3.environment | {"DRTL_BLOB_URL": BLOB_URL}
    command = [
        sys.executable,
        "-c",
        "from app.cli import main; main()",
        "doctor",
        "--deep",
        "--json",
        "--data-dir",
        str(service.data_dir),
    ]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    return {check["check"]: check for check in json.loads(said)["checks"]}


def restore(service: RunningService, model: str) -> httpx.Response:
    _, _, distorted = next(iter(image_pairs(1)))
    return service.http.post(
        f"/v1/models/{model}/super-resolve", content=distorted, headers={"Content-Type": "image/png"}
    )


def test_a_job_goes_on_when_the_bucket_is_killed_under_it_and_comes_back(service: RunningService, s3: S3Server) -> None:
    job_id = service.post_job("lens", finetune_steps=12, unshuffle=2)  # Better than its input, so it is promoted.
    service.wait_for_step(job_id, 1)
    s3.kill()

    unready = service.http.get("/readyz")
    assert (unready.status_code, unready.json()["pointer"]) == (503, "storage")
    pairs = [
        (side, (f"{stem}.png", content))
        for stem, clean, spoilt in image_pairs(2)
        for side, content in (("clean", clean), ("distorted", spoilt))
    ]
    refused = service.http.post("/v1/datasets", files=pairs)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["pointer"] == "storage"
    assert service.job(job_id)["state"] == "running", "it computes on, and would wait to register its model"

    s3.start()
    eventually(lambda: service.http.get("/readyz").status_code == 200, what="readiness")
    assert service.http.post("/v1/datasets", files=pairs).status_code == 201
    job = service.wait_for_end(job_id, timeout_s=180)
    assert job["state"] == "succeeded", job
    assert job["attempt"] == 1


def test_images_are_restored_from_the_bucket_and_weights_are_served_in_parts(service: RunningService) -> None:
    answer = restore(service, "lens")
    assert answer.status_code == 200, answer.text
    assert answer.content.startswith(b"\x89PNG")
    weights = "/v1/models/lens/versions/1/weights"
    whole = service.http.get(weights).raise_for_status()
    part = service.http.get(weights, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])


def test_an_image_that_comes_when_the_bucket_is_away_is_refused_and_one_that_waits_is_restored(
    service: RunningService, s3: S3Server
) -> None:
    s3.kill()
    assert restore(service, "lens").status_code == 503
    s3.start()
    assert restore(service, "lens").status_code == 200


def test_the_doctor_finds_nothing_wrong_and_gives_up_no_row_to_a_bucket_that_is_away(
    service: RunningService, s3: S3Server
) -> None:
    found = doctor(service, s3)
    assert found["bucket"]["state"] == "ok"
    for check in ("missing-blobs", "damaged-blobs", "orphan-blobs", "broken-uploads"):
        assert found[check]["state"] == "ok", found[check]
    s3.kill()
    away = doctor(service, s3)
    s3.start()
    assert away["bucket"]["state"] == "problem"
    assert away["data"]["state"] == "problem"
    assert "missing-blobs" not in away


def test_nothing_is_kept_in_the_folder_and_no_log_tells_the_secret(service: RunningService, s3: S3Server) -> None:
    assert not (service.data_dir / "blobs").exists()
    assert list(s3.bucket.glob("service/??/*"))
    for path in service.data_dir.rglob("*.log"):
        assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in path.read_text(errors="replace"), path


def test_the_compose_file_for_a_bucket_gives_it_to_every_process_that_uses_blobs() -> None:
    plain = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    bucket = yaml.safe_load((ROOT / "deploy/docker-compose.s3.yml").read_text())["services"]
    ours = {name for name, service in plain.items() if service["image"] == "drtl-service"} - {"migrate"}
    assert set(bucket) == ours | {"objects"}
    for name in ours:
        assert {"DRTL_BLOB_URL", "AWS_ENDPOINT_URL", "AWS_REGION", *CREDENTIALS} == set(bucket[name]["environment"]), (
            name
        )

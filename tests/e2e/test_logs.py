"""One request followed through the processes of the running service, by its logs; and that no secret is in them."""

import json
from pathlib import Path
from typing import Any

from tests.images import image_pairs
from tests.servers import RunningService, embedded_service, eventually


def lines(service: RunningService, process: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log(process).splitlines() if line.strip()]


def secrets_of(service: RunningService) -> set[str]:
    """The broker's password, as only the processes know it."""
    environment = Path(f"/proc/{service.pid('api')}/environ").read_bytes().decode().split("\0")
    url = next(entry for entry in environment if entry.startswith("DRTL_BROKER_URL="))
    return {url.rpartition("@")[0].rpartition(":")[2]}


def test_a_request_is_found_in_the_logs_of_every_process_that_it_reached_and_secrets_in_none(tmp_path: Path) -> None:
    with embedded_service(tmp_path / "data", DRTL_LOG_FORMAT="json") as service:
        files = [
            (side, (f"{stem}.png", image))
            for stem, clean, distorted in image_pairs(4)
            for side, image in (("clean", clean), ("distorted", distorted))
        ]
        form = {"name": "followed", "scheme": "baseline", "finetune_steps": "5"}
        answer = service.http.post("/v1/jobs", data=form, files=files, headers={"X-Request-ID": "follow-me"})
        job = service.wait_for_end(answer.json()["id"])
        assert job["state"] == "succeeded", job

        def trained() -> list[dict[str, Any]]:
            return [line for line in lines(service, "worker-training") if "succeeded" in line["message"]]

        eventually(trained, what="the last line of the training")
        asked = [line for line in lines(service, "api") if line.get("request_id") == "follow-me"]
        assert any(job["id"] in line["message"] for line in asked)
        assert any(line.get("route") == "/v1/jobs" and line["status"] == 202 for line in asked)
        told = [line for line in lines(service, "worker-training") if line.get("job_id") == job["id"]]
        assert any("fine_tuning" in line["message"] for line in told)
        assert all((line["request_id"], line["attempt"]) == ("follow-me", 1) for line in told)
        assert any(line["logger"].startswith("celery") for line in lines(service, "worker-inference"))
        assert any(line["logger"].startswith("uvicorn") for line in lines(service, "api"))
        (password,) = secrets_of(service)
        assert len(password) > 20
        for log in (service.data_dir / "logs").glob("*.log"):
            assert password not in log.read_text(errors="replace"), log.name

        def steps() -> float:
            named = [
                line
                for line in service.http.get("/metrics").text.splitlines()
                if line.startswith("drtl_training_steps_total ")
            ]
            return float(named[0].split()[1])

        assert eventually(steps, what="steps counted in the worker") >= 5

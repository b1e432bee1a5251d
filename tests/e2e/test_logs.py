"""One request followed through the processes of the running service, by its logs; and that no secret is in them."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from app.core import keys
from app.core.database import open_database, sessions
from tests.images import image_pairs
from tests.servers import RunningService, create_postgres_database, embedded_service, eventually

DATABASE_PASSWORD = "kept-from-every-log"
FILE_NAME = "what-nobody-shall-read"


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
        form = {"name": "followed", "scheme": "baseline", "finetune_steps": "5", "unshuffle": "4"}
        service.wait_for_end(service.post_job("first", finetune_steps=1))  # Nobody wakes a worker that is awake.
        answer = service.http.post("/v1/jobs", data=form, files=files, headers={"X-Request-ID": "follow-me"})
        job = service.wait_for_end(answer.json()["id"])
        assert job["state"] == "succeeded", job

        def trained() -> list[dict[str, Any]]:
            told = lines(service, "worker-training")
            return [line for line in told if line.get("job_id") == job["id"] and "succeeded" in line["message"]]

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

        assert eventually(steps, what="steps counted in the worker") >= 6


def test_no_process_logs_keys_passwords_or_what_clients_call_their_files(tmp_path: Path, postgres_url: str) -> None:
    """Right keys, wrong ones, and good, broken and refused uploads; and then the database goes away."""
    database_url = create_postgres_database(postgres_url)
    with_password = database_url.replace("postgres@", f"postgres:{DATABASE_PASSWORD}@")
    with embedded_service(tmp_path / "data", DRTL_DATABASE_URL=with_password) as service:
        engine = open_database(database_url)
        with sessions(engine).begin() as session:
            _, token = keys.create(session, "lab", ["read", "train", "infer"])
        wrong = token[:-8] + "AAAAAAAA"
        secrets = {
            *secrets_of(service),
            DATABASE_PASSWORD,
            token.rpartition("_")[2],
            wrong.rpartition("_")[2],
            FILE_NAME,
        }
        image = image_pairs(1)[0][1]

        def files(content: bytes) -> list[tuple[str, tuple[str, bytes]]]:
            return [
                (side, (f"{FILE_NAME}{number}.png", content)) for side in ("clean", "distorted") for number in (1, 2)
            ]

        for headers in (
            {"Authorization": f"Bearer {token}"},
            {"Authorization": f"Bearer {wrong}"},
            {"Authorization": token},
            {"Cookie": f"drtl_ticket={wrong}"},
            {},
        ):
            ask = partial(service.http.request, headers=headers)
            ask("GET", "/v1/jobs", params={"key": token, "password": wrong})
            ask("GET", f"/v1/{token}")
            ask("POST", "/v1/jobs", data={"name": "secret", "api_key": token}, files=files(image))
            ask("POST", "/v1/datasets", files=files(image))
            ask("POST", "/v1/datasets", files=files(image[:200]))
            ask("POST", "/v1/models/none/super-resolve", files={"image": (FILE_NAME, image)})
            ask("POST", "/v1/batches", files={"images": (FILE_NAME, image)}, data={"model": "none"})
            ask("POST", "/v1/session")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        engine.dispose()
        with psycopg.connect(f"{postgres_url}/postgres", autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        eventually(lambda: service.http.get("/readyz").status_code == 503, what="a service without a database")
        assert service.http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 503
        eventually(lambda: name in service.log("worker-inference"), what="a worker that misses its database")
        logs = {log.name: log.read_text(errors="replace") for log in (service.data_dir / "logs").glob("*.log")}
    logs["supervisor.log"] = (tmp_path / "data" / "supervisor.log").read_text()
    assert {"api.log", "beat.log", "worker-training.log", "worker-inference.log", "valkey.log"} <= logs.keys()
    assert [(log, secret) for log, text in logs.items() for secret in secrets if secret in text] == []

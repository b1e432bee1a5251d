"""What holds for the service as a whole: problems everywhere, a documented surface, health, and its budget."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import examples
from app.api.schemas.datasets import DatasetOut
from app.api.schemas.graph import GraphOut
from app.api.schemas.jobs import EventOut, JobFromDataset, JobOut
from app.api.schemas.models import ModelOut, VersionOut
from app.api.schemas.restoring import OperationOut
from app.api.schemas.service import Readiness
from app.core.database import open_database
from app.core.errors import ServiceError
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import pair_files

ROOT = Path(__file__).parents[2]
Operations = list[tuple[str, dict[str, Any]]]


# Problems


def test_unknown_paths_and_wrong_methods_are_problems(client: httpx.Client) -> None:
    for path in ("/v1", "/v1/nothing", "/v2/jobs", "/web/nothing.js"):
        assert problem(client.get(path), 404, "not-found")["instance"] == path
    answer = client.delete("/v1/jobs")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"]


def test_an_unforeseen_error_is_a_problem_that_tells_nothing_of_the_inside(api_settings: Settings) -> None:
    app = create_app(api_settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    with connected(app) as client:
        answer = client.get("/broken")
    problem(answer, 500, "internal")
    assert "secret" not in answer.text


def test_every_problem_type_leads_to_its_description(client: httpx.Client) -> None:
    document = problem(client.get("/v1/jobs/job_00"), 404, "not-found")
    assert client.get(document["type"]).json()["title"] == document["title"]
    problem(client.get("/problems/unheard-of"), 404, "not-found")


def every_kind(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every_kind(child))]


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.code)
def test_the_page_of_a_problem_type_says_when_it_happens_and_what_to_do(
    client: httpx.Client, kind: type[ServiceError]
) -> None:
    page = client.get(f"/problems/{kind.code}").json()
    assert (page["title"], page["status"]) == (kind.title, kind.status)
    for told in ("meaning", "remedy"):
        assert told in vars(kind), "it is not told by the words of a wider kind"
        assert page[told] == getattr(kind, told)
        assert page[told].endswith(".")


def test_a_database_that_is_away_is_unavailable(api_settings: Settings) -> None:
    gone = api_settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:9/none"})
    with connected(create_app(gone)) as client:
        problem(client.get("/v1/jobs"), 503, "unavailable")
        answer = client.get("/readyz")
    assert problem(answer, 503, "unavailable")["errors"][0]["pointer"] == "database"


# Health


def test_a_whole_service_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["checks"] == {"database": "ok", "broker": "ok", "storage": "ok"}


def test_readiness_names_every_part_that_is_away(api_settings: Settings, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    changed = {
        "database_url": f"sqlite:///{tmp_path / 'not migrated.sqlite3'}",
        "broker_url": "redis://127.0.0.1:9/0",
        "blob_dir": blobs,
    }
    with connected(create_app(api_settings.model_copy(update=changed))) as client:
        (blobs / "incoming").rmdir()
        answer = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    document = problem(answer, 503, "unavailable")
    assert [part["pointer"] for part in document["errors"]] == ["database", "broker", "storage"]
    assert answer.headers["retry-after"] == "5"


def test_a_job_is_accepted_while_the_broker_is_away(api_settings: Settings) -> None:
    away = api_settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"})
    with connected(create_app(away)) as client:
        answer = client.post("/v1/jobs", files=pair_files(2), data={"name": "patient"})
    assert answer.status_code == 202


# OpenAPI


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> Operations:
    return [(f"{verb} {path}", op) for path, item in document["paths"].items() for verb, op in item.items()]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def has_example(document: dict[str, Any], media: dict[str, Any]) -> bool:
    schema = resolved(document, media.get("schema", {}))
    return bool("example" in media or media.get("examples") or schema.get("examples"))


def test_every_operation_is_described(operations: Operations) -> None:
    assert len(operations) >= 17
    for name, operation in operations:
        assert len(operation.get("description", "")) > 20, name


def test_every_answer_and_body_is_typed_and_has_an_example(document: dict[str, Any], operations: Operations) -> None:
    for name, operation in operations:
        answers = {status: answer for status, answer in operation["responses"].items() if status < "300"}
        assert answers, name
        media_types = [
            (status, *pair) for status, answer in answers.items() for pair in answer.get("content", {}).items()
        ]
        assert media_types or set(answers) == {"204"}, name
        bodies = operation.get("requestBody", {}).get("content", {})
        for status, media_type, media in [*media_types, *(("body", *pair) for pair in bodies.items())]:
            assert media.get("schema"), (name, status, media_type)
            assert has_example(document, media), (name, status, media_type)


def test_every_parameter_is_described_by_an_example_a_default_or_words(operations: Operations) -> None:
    for name, operation in operations:
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            told = "example" in parameter or parameter.get("examples") or schema.get("examples")
            assert told or "default" in schema or parameter.get("description"), (name, parameter["name"])


def test_every_failure_is_documented_as_a_problem(document: dict[str, Any], operations: Operations) -> None:
    for name, operation in operations:
        failures = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"500", "503"} <= failures.keys(), name
        takes_input = "requestBody" in operation or any(p["in"] == "query" for p in operation.get("parameters", []))
        if takes_input:
            assert "422" in failures, name
        for status, answer in failures.items():
            assert list(answer["content"]) == ["application/problem+json"], (name, status)
            (media,) = answer["content"].values()
            assert media["schema"] == {"$ref": "#/components/schemas/Problem"}
            for example in media["examples"].values():
                assert example["value"]["status"] == int(status)
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_examples_fit_their_schemas() -> None:
    DatasetOut.model_validate(examples.DATASET)
    JobOut.model_validate(examples.JOB)
    JobFromDataset.model_validate(examples.JOB_FROM_DATASET)
    EventOut.model_validate(examples.EVENT)
    GraphOut.model_validate(examples.GRAPH)
    ModelOut.model_validate(examples.MODEL)
    VersionOut.model_validate(examples.VERSION)
    OperationOut.model_validate(examples.OPERATION)
    Readiness.model_validate(examples.READY)


def test_every_schema_that_is_referred_to_exists(document: dict[str, Any]) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


# Budget


def test_the_service_loads_no_torch_and_starts_quickly() -> None:
    """In CPU time, the best of three, and against the libraries alone: machines differ, and others use this one too.

    Without OpenTelemetry's SDK, which is an extra, and which the broker's client would load.
    """
    program = (
        "import resource, sys; sys.modules['opentelemetry.sdk'] = None;"
        "import {}; used = resource.getrusage(resource.RUSAGE_SELF);"
        "heavy = {{'torch', 'ml', 'worker', 'skimage', 'scipy', 'alembic'}} & set(sys.modules);"
        "print(used.ru_utime + used.ru_stime); sys.exit(str(heavy) if heavy else 0)"
    )
    libraries = "fastapi, sqlalchemy.orm, redis.asyncio, celery, PIL.Image, pydantic_settings"

    def seconds(modules: str) -> float:
        command = [sys.executable, "-c", program.format(modules)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return float(run.stdout)

    measured = [(seconds("app.main"), seconds(libraries)) for _ in range(3)]
    service, alone = (min(column) for column in zip(*measured, strict=True))
    assert service < 2.5 * alone


def test_an_idle_service_is_small(api_settings: Settings) -> None:
    environment = {
        **os.environ,
        "DRTL_DATA_DIR": str(api_settings.data_dir),
        "DRTL_BROKER_URL": api_settings.broker_url,
    }
    program = (
        "import threading, uvicorn, httpx, time, resource; from app.main import create_app;"
        "server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_config=None));"
        "threading.Thread(target=server.run, daemon=True).start();\n"
        "while not server.started: time.sleep(0.01)\n"
        "port = server.servers[0].sockets[0].getsockname()[1]\n"
        "assert httpx.get(f'http://127.0.0.1:{port}/readyz').status_code == 200\n"
        "print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0]); server.should_exit = True"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) / 1024 < 150


def test_ten_pairs_are_accepted_in_well_under_two_seconds(client: httpx.Client) -> None:
    files = pair_files(10, 576, 576)
    start = time.process_time()  # Client and service; the machine may be busy with other things.
    answer = client.post("/v1/jobs", files=files, data={"name": "ten"}, timeout=110)
    assert answer.status_code == 202
    assert time.process_time() - start < 1.5


def resident_mib() -> float:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def test_uploads_are_not_held_in_memory(client: httpx.Client) -> None:
    """A hundred megabytes pass through; the service, which is this process, grows by a fraction of them."""
    block = os.urandom(1 << 20)
    sizes = []

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
        for _ in range(100):
            yield block
            sizes.append(resident_mib())
        yield b"\r\n--b--\r\n"

    before = resident_mib()
    answer = client.post("/v1/datasets", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    problem(answer, 422, "bad-archive")
    assert max(sizes) - before < 30


def test_reading_does_not_wait_for_a_writer(client: httpx.Client, api_settings: Settings) -> None:
    """On SQLite one process at a time may write; the API's reads are no writes."""
    engine = open_database(api_settings.database_url)
    with engine.begin():
        times = []
        for _ in range(5):
            start = time.monotonic()
            assert client.get("/v1/jobs").status_code == 200
            times.append(time.monotonic() - start)
    engine.dispose()
    assert statistics.median(times) < 0.5

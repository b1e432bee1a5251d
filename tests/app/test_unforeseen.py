"""Errors that nobody has foreseen: what the caller, the metric and the log are told of them."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

from app.api import deps, same_origin
from app.core import logs
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.test_metrics import of, scrape

INNER = "what the caller shall not learn"
Line = dict[str, Any]


@pytest.fixture
def lines() -> Iterator[Callable[[], list[Line]]]:
    """What this process has logged, in JSON."""
    root, stream = logging.getLogger(), io.StringIO()
    level = root.level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter("json"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def app(api_settings: Settings) -> FastAPI:
    return create_app(api_settings.model_copy(update={"log_format": "json"}))


def fail() -> None:
    raise RuntimeError(INNER)


def counted(client: httpx.Client, **labels: str) -> tuple[float, float]:
    """How many requests with these labels have been answered, and timed."""
    samples = scrape(client)
    answered = of(samples, "drtl_requests_total", **labels)
    del labels["status"]
    return answered, of(samples, "drtl_request_seconds_count", **labels)


def the_traceback(lines: list[Line]) -> Line:
    """The line that has one, after checking that no other tells of the error."""
    (line,) = (line for line in lines if INNER in json.dumps(line))
    assert "RuntimeError" in line["traceback"]
    assert line["level"] == "error"
    assert not any("ASGI" in line["message"] for line in lines), "the server has logged it as well"
    return line


def test_an_error_in_a_dependency_is_answered_counted_and_logged_once_by_the_requests_id(
    app: FastAPI, lines: Callable[[], list[Line]]
) -> None:
    app.dependency_overrides[deps.services] = fail
    with connected(app) as client:
        answer = client.get("/v1/jobs", headers={"X-Request-ID": "mine-500"})
        document = problem(answer, 500, "internal")
        assert document["instance"] == "/v1/jobs"
        assert INNER not in answer.text
        assert answer.headers["x-request-id"] == "mine-500"
        assert answer.headers["connection"] == "close", "of a request that may not have been read to its end"
        assert counted(client, route="/v1/jobs", method="GET", status="500") == (1, 1)
    assert the_traceback(lines())["request_id"] == "mine-500"
    (told,) = (line for line in lines() if line.get("request_id") == "mine-500" and "status" in line)
    assert (told["message"], told["status"]) == ("GET /v1/jobs: 500", 500)


def test_an_error_in_a_middleware_of_ours_is_answered_counted_and_logged_alike(
    app: FastAPI, lines: Callable[[], list[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_origin, "is_foreign", lambda headers: fail())
    with connected(app) as client:
        answer = client.post("/v1/jobs", headers={"X-Request-ID": "mine-501"})
        problem(answer, 500, "internal")
        assert answer.headers["x-request-id"] == "mine-501"
        assert counted(client, route="other", method="POST", status="500") == (1, 1)
    assert the_traceback(lines())["request_id"] == "mine-501"


def test_an_answer_that_has_begun_breaks_off_and_the_log_says_why_by_the_requests_id(
    app: FastAPI, lines: Callable[[], list[Line]]
) -> None:
    def parts() -> Iterator[bytes]:
        yield b"the beginning"
        fail()

    app.add_api_route("/breaks-off", lambda: StreamingResponse(parts()), response_class=StreamingResponse)
    with connected(app) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            client.get("/breaks-off", headers={"X-Request-ID": "mine-502"})
        assert counted(client, route="/breaks-off", method="GET", status="200") == (1, 1)
    told = [line for line in lines() if "traceback" in line and line.get("request_id") == "mine-502"]
    assert [INNER in line["traceback"] for line in told] == [True]


def test_an_error_after_the_answer_is_logged_once_by_the_requests_id_and_the_connection_goes_on(
    app: FastAPI, lines: Callable[[], list[Line]]
) -> None:
    def answered(afterwards: BackgroundTasks) -> str:
        afterwards.add_task(fail)
        return "done"

    app.add_api_route("/answered", answered)
    with connected(app) as client:
        answer = client.get("/answered", headers={"X-Request-ID": "mine-503"})
        assert (answer.status_code, answer.json()) == (200, "done")
        stream = answer.extensions["network_stream"]
        assert client.get("/healthz").extensions["network_stream"] is stream
    assert the_traceback(lines())["request_id"] == "mine-503"

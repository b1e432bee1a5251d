"""Which requests are sent again, when, and how often; what is raised in the end."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import ServiceError
from drtl_client import AsyncClient, Client, DRTLError, errors
from drtl_client.flow import Request
from drtl_client.options import Option, fields_of
from drtl_client.retries import LONGEST_RETRY_AFTER_S, pause_s

PROBLEM = {"Content-Type": "application/problem+json"}
JOB: dict[str, Any] = {"items": [], "next": None}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    async def at_once(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(anyio, "sleep", at_once)
    return pauses


def scripted(
    *answers: httpx.Response | Exception,
) -> tuple[Callable[[httpx.Request], httpx.Response], list[httpx.Request]]:
    """A service that gives these answers in turn, and the requests that it got."""
    left: Iterator[httpx.Response | Exception] = iter(answers)
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return respond, asked


def client_of(respond: Callable[[httpx.Request], httpx.Response], retries: int = 4) -> Client:
    http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(respond))
    return Client(http=http, retries=retries)


def test_a_service_on_its_way_up_is_asked_again(slept: list[float]) -> None:
    request = httpx.Request("GET", "http://service/v1/jobs")
    respond, asked = scripted(
        httpx.ConnectError("refused", request=request),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(503, headers={"Retry-After": "5"}),
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(200, json=JOB),
    )
    assert list(client_of(respond).jobs.list()) == []
    assert len(asked) == 5
    assert 5 <= slept[2] <= 6
    assert 7 <= slept[3] <= 9


def test_the_awaiting_client_asks_again_just_so(slept: list[float]) -> None:
    respond, asked = scripted(httpx.Response(503, headers={"Retry-After": "5"}), httpx.Response(200, json=JOB))

    async def listed() -> None:
        http = httpx.AsyncClient(base_url="http://service", transport=httpx.MockTransport(respond))
        async with AsyncClient(http=http) as client:
            assert [job async for job in client.jobs.list()] == []

    anyio.run(listed)
    assert len(asked) == 2
    assert 5 <= slept[0] <= 6


def test_patience_has_an_end_and_the_last_answer_is_raised(slept: list[float]) -> None:
    answers = [httpx.Response(503, json={"type": "/problems/unavailable", "detail": "no database"}) for _ in range(3)]
    respond, asked = scripted(*answers)
    with pytest.raises(errors.Unavailable, match="no database"):
        client_of(respond, retries=2).jobs.get("job_1")
    assert len(asked) == 3
    assert len(slept) == 2


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 500])
def test_a_refusal_stands(status: int, slept: list[float]) -> None:
    respond, asked = scripted(httpx.Response(status, json={"detail": "no"}))
    with pytest.raises(errors.Problem, match="no"):
        client_of(respond).jobs.get("job_1")
    assert len(asked) == 1
    assert not slept


def test_work_that_goes_on_after_a_timeout_is_not_asked_for_twice(slept: list[float]) -> None:
    late = httpx.Response(504, json={"type": "/problems/timed-out", "detail": "later"}, headers=PROBLEM)
    respond, asked = scripted(late)
    with pytest.raises(errors.TimedOut):
        client_of(respond).models["x"].super_resolve(b"image")
    assert len(asked) == 1


def test_a_first_request_that_is_still_being_answered_is_waited_for(slept: list[float]) -> None:
    busy = {"type": "/problems/request-in-flight", "detail": "wait"}
    waits = [httpx.Response(409, json=busy, headers={"Retry-After": "1"}) for _ in range(20)]
    respond, asked = scripted(*waits, httpx.Response(200, json={"id": "job_1"}))
    assert client_of(respond, retries=1).jobs.create("ds_1", name="x").id == "job_1"
    assert len({request.headers["Idempotency-Key"] for request in asked}) == 1
    assert len({request.content for request in asked}) == 1


def test_two_jobs_have_two_keys(slept: list[float]) -> None:
    respond, asked = scripted(httpx.Response(200, json={}), httpx.Response(200, json={}))
    client = client_of(respond)
    client.jobs.create("ds_1", name="x")
    client.jobs.create("ds_1", name="x")
    assert len({request.headers["Idempotency-Key"] for request in asked}) == 2


@pytest.mark.parametrize("code", ["quota-exhausted", "too-many-requests"])
def test_what_is_used_up_for_longer_than_the_client_waits_is_not_asked_for_again(code: str, slept: list[float]) -> None:
    refusal = {"type": f"/problems/{code}", "detail": "used up"}
    respond, asked = scripted(httpx.Response(429, json=refusal, headers={"Retry-After": "61"}))
    with pytest.raises(errors.TooManyRequests, match="used up") as refused:
        client_of(respond).models["x"].super_resolve(b"image")
    assert refused.value.retry_after_s == 61.0
    assert len(asked) == 1
    assert not slept
    short = httpx.Response(429, json=refusal, headers={"Retry-After": "60"})
    respond, asked = scripted(short, httpx.Response(200, json=JOB))
    assert list(client_of(respond).jobs.list()) == []
    assert len(asked) == 2


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 10**6))
def test_pauses_are_never_negative_nor_endless(attempt: int, asked_s: int) -> None:
    response = httpx.Response(503, headers={"Retry-After": str(asked_s)})
    pause = pause_s(Request("GET", "/"), response, attempt, retries=30)
    assert pause is not None
    assert min(asked_s, LONGEST_RETRY_AFTER_S) <= pause <= LONGEST_RETRY_AFTER_S + 8


def test_an_image_that_takes_long_is_followed_to_its_result(slept: list[float]) -> None:
    operation = {"id": "op_1", "state": "queued", "created_at": "2026-01-02T03:04:05Z"}
    respond, asked = scripted(
        httpx.Response(202, json=operation, headers={"Location": "/v1/operations/op_1"}),
        httpx.Response(200, json=operation | {"state": "running", "progress": 0.5}),
        httpx.Response(200, json=operation | {"state": "succeeded"}),
        httpx.Response(200, content=b"image", headers={"X-DRTL-Model": "x@1"}),
    )
    heard: list[float] = []
    model = client_of(respond).models["x"]
    restored = model.super_resolve(b"image", outscale=2.5, ensemble=True, on_progress=heard.append)
    assert restored.content == b"image"
    assert heard == [0.5]
    assert asked[0].url.params == httpx.QueryParams({"outscale": "2.5", "ensemble": "true"})
    assert asked[0].headers["Prefer"].startswith("wait=")
    assert [request.url.path for request in asked[1:]] == ["/v1/operations/op_1"] * 2 + ["/v1/operations/op_1/result"]


def test_a_long_result_is_written_to_disk_and_a_damaged_one_is_not(slept: list[float], tmp_path: Path) -> None:
    operation = {"id": "op_1", "state": "queued", "created_at": "2026-01-02T03:04:05Z"}
    digest = hashlib.sha256(b"image").hexdigest()
    for content in (b"image", b"imagX"):
        respond, _ = scripted(
            httpx.Response(202, json=operation, headers={"Location": "/v1/operations/op_1"}),
            httpx.Response(200, json=operation | {"state": "succeeded"}),
            httpx.Response(200, content=content, headers={"ETag": f'"{digest}"', "X-DRTL-Match": "0.930"}),
        )
        model, target = client_of(respond).models["x"], tmp_path / f"{content.decode()}.png"
        if content == b"image":
            assert model.super_resolve_to(target, b"photo").match == 0.93
            assert target.read_bytes() == content
        else:
            with pytest.raises(errors.Damaged, match=r"imagX\.png"):
                model.super_resolve_to(target, b"photo")
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_a_file_that_is_still_being_made_is_waited_for(slept: list[float], tmp_path: Path) -> None:
    early = httpx.Response(409, json={"type": "/problems/not-ready", "detail": "soon"}, headers={"Retry-After": "2"})
    respond, asked = scripted(early, early, httpx.Response(200, content=b"onnx"))
    file = client_of(respond).models["x@3"].download(f"{tmp_path}/models/", onnx=True)
    assert file == tmp_path / "models/x-v3.onnx"
    assert file.read_bytes() == b"onnx"
    assert [request.url.path for request in asked] == ["/v1/models/x/versions/3/onnx"] * 3
    assert slept == [2.0, 2.0]


def test_the_key_is_sent_from_the_argument_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRTL_KEY", "from-environment")
    assert Client("http://service").http.headers["Authorization"] == "Bearer from-environment"
    assert AsyncClient("http://service", key="given").http.headers["Authorization"] == "Bearer given"
    monkeypatch.delenv("DRTL_KEY")
    assert "Authorization" not in Client("http://service").http.headers


@pytest.mark.parametrize("key", ["ü", "drtl_0_secret\n", "drtl_0_secret\r", "drtl 0", "\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(errors.BadKey, match="the key holds") as refused:
            client("http://service", key=key)
        assert "secret" not in str(refused.value)
    monkeypatch.setenv("DRTL_KEY", key)
    with pytest.raises(errors.BadKey):
        Client("http://service")


def all_below(kind: type[ServiceError]) -> list[type[ServiceError]]:
    return [narrow for child in kind.__subclasses__() for narrow in (child, *all_below(child))]


@pytest.mark.parametrize("kind", all_below(ServiceError), ids=lambda kind: kind.code)
def test_every_error_of_the_service_has_an_exception_of_the_same_name(kind: type[ServiceError]) -> None:
    document = {"type": f"/problems/{kind.code}", "detail": "why", "pointer": "/name"}
    raised = errors.problem_of(httpx.Response(kind.status, json=document))
    assert type(raised).__name__ == kind.__name__
    assert raised.pointer == "/name"
    assert isinstance(raised, DRTLError)


def test_an_error_of_a_later_service_is_known_by_its_status() -> None:
    raised = errors.problem_of(httpx.Response(404, json={"type": "/problems/no-such-lens", "detail": "no lens"}))
    assert isinstance(raised, errors.NotFound)
    assert raised.type == "/problems/no-such-lens"


def test_an_answer_of_something_else_than_the_service_is_still_readable() -> None:
    assert str(errors.problem_of(httpx.Response(502, text="<html>"))) == "HTTP 502 Bad Gateway: <html>"


def test_options_are_words_as_forms_have_them() -> None:
    asked: dict[str, Option] = {
        "fix": ["align", "crop"],
        "seed": 3,
        "outscale": 1.5,
        "explain": True,
        "name": "x",
        "unshuffle": None,
    }
    words = {"fix": "align,crop", "seed": "3", "outscale": "1.5", "explain": "true", "name": "x"}
    assert fields_of(asked) == words

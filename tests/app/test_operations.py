"""Single images over HTTP: options, waiting, following, cancelling, trusting. The test plays the worker by hand."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.core import operations, repository
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.storage import StorageDown
from app.core.tables import Operation
from tests.app.conftest import problem
from tests.app.material import encoded, pixels
from tests.app.test_models import Register, register
from tests.app.work import Hands
from tests.servers import eventually

__all__ = ["register"]  # A fixture of the registry's tests.

PATH = "/v1/models/scanner/super-resolve"
PNG = {"Content-Type": "image/png"}
LATER = {**PNG, "Prefer": "respond-async"}


@pytest.fixture
def hands(rows: sessionmaker[Session], api_settings: Settings, register: Register) -> Iterator[Hands]:
    """A worker's hands, with a model to work with."""
    register()
    hands = Hands.of(rows, api_settings)
    yield hands
    hands.queue.close()


@pytest.fixture
def queued(client: httpx.Client, hands: Hands) -> Callable[..., dict[str, Any]]:
    """Sends an image that waits; returns its operation."""

    def send(model: str = "scanner", **options: str | float) -> dict[str, Any]:
        path = f"/v1/models/{model}/super-resolve"
        answer = client.post(path, content=encoded(pixels()), headers=LATER, params=options)
        assert answer.status_code == 202, answer.text
        operation: dict[str, Any] = answer.json()
        return operation

    return send


# Options


def test_options_reach_the_worker(queued: Callable[..., dict[str, Any]], rows: sessionmaker[Session]) -> None:
    asked = {
        "precision": "fp16",
        "outscale": 1.5,
        "ensemble": 8,
        "explain": True,
        "metadata": "strip",
        "quality": 77,
    }
    operation = queued(**asked)
    assert operation["options"] == {**asked, "output": "png"}
    with rows() as session:
        assert session.get_one(Operation, operation["id"]).options == {**asked, "output": "png"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("precision", "fp8"), ("outscale", 0), ("outscale", 8.01), ("outscale", "nan"), ("outscale", "inf")],
        *[("ensemble", 4), ("explain", "perhaps"), ("metadata", "drop"), ("quality", 0), ("quality", 101)],
        ("presicion", "fp32"),
    ],
)
def test_an_option_that_is_not_offered_is_refused_by_name(
    client: httpx.Client, hands: Hands, name: str, value: object
) -> None:
    answer = client.post(PATH, content=encoded(pixels()), headers=LATER, params={name: str(value)})
    assert problem(answer, 422, "unprocessable")["pointer"] == name


@pytest.mark.parametrize(
    ("sent", "accept", "output"),
    [
        ("PNG", None, "png"),
        ("JPEG", None, "jpeg"),
        ("JPEG", "*/*", "jpeg"),
        ("JPEG", "image/*;q=0.8, text/html", "jpeg"),
        ("JPEG", "image/webp", "webp"),
        ("PNG", "image/tiff, image/png;q=0.9", "tiff"),
    ],
)
def test_without_a_preference_an_image_keeps_its_format(
    client: httpx.Client, hands: Hands, sent: str, accept: str | None, output: str
) -> None:
    headers = {"Content-Type": "application/octet-stream", "Prefer": "respond-async", "Accept": accept or ""}
    answer = client.post(PATH, content=encoded(pixels(), sent), headers=headers)
    assert answer.json()["options"]["output"] == output


def test_several_lines_of_accept_are_one_list(client: httpx.Client, hands: Hands) -> None:
    lines = [("Accept", "application/problem+json"), ("Accept", "image/webp")]
    answer = client.post(PATH, content=encoded(pixels()), headers=[*LATER.items(), *lines])
    assert answer.json()["options"]["output"] == "webp"


def test_an_image_that_outscale_would_make_too_large_is_refused(
    client: httpx.Client, hands: Hands, api_settings: Settings
) -> None:
    side = int((api_settings.max_image_pixels / 64) ** 0.5) + 8
    body = encoded(pixels(side, side), compress_level=0)
    answer = client.post(PATH, content=body, headers=LATER, params={"outscale": 8})
    problem(answer, 413, "too-large")
    assert client.post(PATH, content=body, headers=LATER, params={"outscale": 1}).status_code == 202


def test_small_images_get_their_turn_first_and_ensembles_count_as_eight(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    large = client.post(PATH, content=encoded(pixels(900, 700)), headers=LATER).json()
    eightfold, single = queued(ensemble=8), queued()
    assert [hands.claim().operation_id for _ in range(3)] == [single["id"], eightfold["id"], large["id"]]


# Waiting


@pytest.mark.parametrize("failure", [OperationalError("SELECT", {}, Exception("gone")), StorageDown("gone")])
def test_an_image_that_is_taken_in_is_not_asked_for_again_where_the_database_then_fails(
    client: httpx.Client, hands: Hands, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """A client that is told to try again would have it restored twice."""

    def fail(*_: object) -> NoReturn:
        raise failure

    monkeypatch.setattr(repository, "get_operation", fail)
    answer = client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "wait=2"})
    monkeypatch.undo()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/operations/{answer.json()['id']}"
    hands.succeed(hands.claim(), b"restored")
    assert client.get(f"{answer.headers['location']}/result").content == b"restored"
    assert client.head(f"{answer.headers['location']}/result").headers["content-length"] == "8"


def test_no_image_is_promised_that_a_power_cut_could_still_take(
    client: httpx.Client, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise StorageDown("gone")

    monkeypatch.setattr(FolderStorage, "make_durable", fail)
    answer = client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "wait=1"})
    problem(answer, 503, "unavailable")


def test_the_row_of_a_promised_image_is_on_the_disk_too(
    client: httpx.Client, hands: Hands, api_settings: Settings, flushed: list[int]
) -> None:
    database = make_url(api_settings.database_url).database
    assert client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "wait=1"}).status_code == 202
    assert Path(f"{database}-wal").stat().st_ino in flushed


def test_prefer_wait_is_answered_in_that_time(client: httpx.Client, hands: Hands) -> None:
    start = time.monotonic()
    answer = client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "wait=1"})
    assert 0.9 < time.monotonic() - start < 5
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.headers["location"] == f"/v1/operations/{answer.json()['id']}"


def test_respond_async_with_a_wait_waits_and_says_what_it_did(client: httpx.Client, hands: Hands) -> None:
    headers = [("Content-Type", "image/png"), ("Prefer", "respond-async"), ("Prefer", 'wait=9; x="y"')]
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(client.post, PATH, content=encoded(pixels()), headers=headers)
        eventually(lambda: client.get("/v1/operations").json()["items"])
        hands.succeed(hands.claim())
        answer = answering.result()
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=9"
    immediate = client.post(PATH, content=encoded(pixels()), headers=LATER)
    assert immediate.headers["preference-applied"] == "respond-async"


def test_a_client_that_hangs_up_cancels_its_image(client: httpx.Client, hands: Hands) -> None:
    body = encoded(pixels())
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + body)
        (operation,) = eventually(lambda: client.get("/v1/operations").json()["items"])
        lease = hands.claim()
    eventually(lambda: client.get(f"/v1/operations/{operation['id']}").json()["state"] == "cancelling", timeout_s=5)
    with hands.rows.begin() as session:
        assert operations.confirm_cancelled(session, lease)


def test_a_client_that_asked_to_be_answered_at_once_may_hang_up(
    client: httpx.Client, queued: Callable[..., dict[str, Any]]
) -> None:
    operation = queued()
    time.sleep(1.2)  # Longer than a waiter looks away.
    assert client.get(f"/v1/operations/{operation['id']}").json()["state"] == "queued"


# Following


def test_an_operation_tells_how_far_it_is_and_how_it_was_done(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    waiting = queued()
    location = f"/v1/operations/{waiting['id']}"
    assert (waiting["state"], waiting["progress"], waiting["facts"], waiting["started_at"]) == ("queued", 0, None, None)
    lease = hands.claim()
    hands.progress(lease, 0.375)
    running = client.get(location).json()
    assert (running["state"], running["progress"], running["result"]) == ("running", 0.375, None)
    assert running["started_at"] is not None
    hands.succeed(lease, fallback_tiles=2, match=0.8125, match_word="near")
    done = client.get(location).json()
    assert (done["state"], done["progress"], done["model"]) == ("succeeded", 1.0, "scanner@1")
    assert (done["facts"]["match"], done["facts"]["seconds"]["restore"]) == (0.8125, 0.25)
    answer = client.get(done["result"])
    assert answer.content == b"restored"
    assert answer.headers["content-location"] == done["result"]
    assert answer.headers["x-drtl-precision-fallback"] == "2"
    assert (answer.headers["x-drtl-match"], answer.headers["x-drtl-match-word"]) == ("0.812", "near")
    steps = [part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert steps == ["queue", "decode", "restore", "encode"]
    assert "link" not in answer.headers


def test_what_is_unknown_about_a_result_is_not_in_its_headers(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    operation = queued()
    hands.succeed(hands.claim(), match=None)
    headers = client.get(f"/v1/operations/{operation['id']}/result").headers
    assert not {"x-drtl-precision-fallback", "x-drtl-match", "x-drtl-match-word", "link"} & set(headers)


def test_operations_are_paged_newest_first_and_found_by_state(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    made = []
    for _ in range(3):
        made.append(queued()["id"])
        time.sleep(0.002)  # Ids sort by the millisecond.
    page = client.get("/v1/operations", params={"limit": 2}).json()
    rest = client.get("/v1/operations", params={"limit": 2, "after": page["next"]}).json()
    assert [operation["id"] for operation in page["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None
    running = hands.claim().operation_id
    found = client.get("/v1/operations", params={"state": "running"}).json()["items"]
    assert [operation["id"] for operation in found] == [running]


# Cancelling


def test_a_waiting_image_is_cancelled_at_once_and_has_no_result(
    client: httpx.Client, queued: Callable[..., dict[str, Any]]
) -> None:
    location = f"/v1/operations/{queued()['id']}"
    for _ in range(2):
        answer = client.post(f"{location}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert "cancelled" in problem(client.get(f"{location}/result"), 409, "conflict")["detail"]


def test_a_running_image_is_cancelling_until_its_worker_has_stopped(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    location = f"/v1/operations/{queued()['id']}"
    lease = hands.claim()
    assert client.post(f"{location}/cancel").json()["state"] == "cancelling"
    problem(client.get(f"{location}/result"), 409, "not-ready")
    with hands.rows.begin() as session:
        operations.confirm_cancelled(session, lease)
    assert client.get(location).json()["state"] == "cancelled"


def test_whoever_waits_for_a_cancelled_image_hears_of_it_at_once(client: httpx.Client, hands: Hands) -> None:
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(client.post, PATH, content=encoded(pixels()), headers=PNG)
        (operation,) = eventually(lambda: client.get("/v1/operations").json()["items"])
        client.post(f"/v1/operations/{operation['id']}/cancel")
        start = time.monotonic()
        problem(answering.result(), 409, "conflict")
        assert time.monotonic() - start < 0.9


# Trusting


def test_a_trust_map_is_where_the_link_says(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    operation = queued(explain=True)
    location = f"/v1/operations/{operation['id']}"
    problem(client.get(f"{location}/trust"), 409, "not-ready")
    hands.succeed(hands.claim(), trust=b"a map")
    result = client.get(f"{location}/result")
    assert result.headers["link"] == f'<{location}/trust>; rel="describedby"; type="image/png"'
    trust = client.get(client.get(location).json()["trust"])
    assert (trust.content, trust.headers["content-type"]) == (b"a map", "image/png")


@pytest.mark.parametrize("rest", ["/result", "/trust"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_client_has_is_not_even_opened(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]], method: str, rest: str
) -> None:
    path = f"/v1/operations/{queued(explain=True)['id']}{rest}"
    problem(client.get(path, headers={"If-None-Match": "*"}), 409, "not-ready")
    hands.succeed(hands.claim(), trust=b"a map")
    whole = client.get(path, headers={"If-None-Match": '"other"'})
    assert whole.status_code == 200
    tag = whole.headers["etag"]
    hands.storage.delete(tag.strip('"'))
    for known in (tag, f'"other", W/{tag}', "*"):
        answer = client.request(method, path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers.get("content-location") == whole.headers.get("content-location")
    problem(client.get(path), 410, "file-lost")


@pytest.mark.parametrize(("code", "status"), [("file-lost", 410), ("model-deleted", 410), ("bad-image", 422)])
def test_having_something_does_not_hide_why_there_is_no_result(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]], code: str, status: int
) -> None:
    path = f"/v1/operations/{queued()['id']}/result"
    hands.fail(hands.claim(), code)
    problem(client.get(path, headers={"If-None-Match": "*"}), status, code)


def test_an_image_is_restored_and_sent_whatever_the_client_has(client: httpx.Client, hands: Hands) -> None:
    headers = {**PNG, "Prefer": "wait=9", "If-None-Match": "*"}
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(client.post, PATH, content=encoded(pixels()), headers=headers)
        eventually(lambda: client.get("/v1/operations").json()["items"])
        hands.succeed(hands.claim())
        answer = answering.result()
    assert (answer.status_code, answer.content) == (200, b"restored")


def test_an_image_that_was_not_to_be_explained_has_no_trust_map(
    client: httpx.Client, queued: Callable[..., dict[str, Any]]
) -> None:
    problem(client.get(f"/v1/operations/{queued()['id']}/trust"), 404, "not-found")


# Choosing a model


def test_auto_leaves_the_model_to_the_worker(
    client: httpx.Client, hands: Hands, queued: Callable[..., dict[str, Any]]
) -> None:
    operation = queued(model="auto")
    assert operation["model"] is None
    lease = hands.claim()
    with hands.rows.begin() as session:
        operations.resolve(session, lease, "scanner", 1)
    assert client.get(f"/v1/operations/{operation['id']}").json()["model"] == "scanner@1"
    hands.succeed(lease)
    assert client.get(f"/v1/operations/{operation['id']}/result").headers["x-drtl-model"] == "scanner@1"


def test_auto_needs_a_promoted_model(client: httpx.Client, register: Register) -> None:
    register(production=None)
    answer = client.post("/v1/models/auto/super-resolve", content=encoded(pixels()), headers=LATER)
    assert "promoted" in problem(answer, 404, "not-found")["detail"]


def test_no_job_may_make_a_model_named_auto(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json={"dataset_id": "ds_0", "name": "auto"})
    assert problem(answer, 422, "unprocessable")["pointer"] == "/name"


# Load


def test_many_waiting_clients_are_all_answered(client: httpx.Client, hands: Hands) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.002):
            with hands.rows.begin() as session:
                lease = operations.claim_next(session, 60)
            if lease is not None:
                hands.succeed(lease)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with ThreadPoolExecutor(32) as pool:
            sent = [pool.submit(client.post, PATH, content=encoded(pixels(seed=n)), headers=PNG) for n in range(96)]
            assert {answer.result().status_code for answer in sent} == {200}
    finally:
        stop.set()
        worker.join()

"""Super-resolution over HTTP. A thread plays the inference worker: the real one is tested with the workers."""

import io
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy.orm import Session, sessionmaker

from app.core import operations, repository
from app.core.folder_storage import FolderStorage
from app.core.queue import Queue
from app.core.settings import Settings
from app.core.tables import Operation
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import animation, encoded, pixels, png_bomb
from tests.app.test_models import Register, register

__all__ = ["register"]  # A fixture of the registry's tests.

PATH = "/v1/models/scanner/super-resolve"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def worker(rows: sessionmaker[Session], api_settings: Settings) -> Iterator[dict[str, Any]]:
    """Takes queued operations and flips their images; set `fail` in the yielded dict to make it refuse."""
    assert api_settings.blob_dir is not None
    storage, queue, stop = FolderStorage(api_settings.blob_dir), Queue(api_settings.broker_url), threading.Event()
    behaviour: dict[str, Any] = {}

    def work() -> None:
        while not stop.wait(0.02):
            with rows.begin() as session:
                lease = operations.claim_next(session, 60)
            if lease is None:
                continue
            if "tells early" in behaviour:
                queue.notify_done(lease.operation_id)
                stop.wait(0.2)
            with rows() as session:
                operation = repository.get_operation(session, lease.operation_id)
            assert operation.input_blob is not None
            with storage.open(operation.input_blob) as file, Image.open(file) as image:
                flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("RGB")
            output = storage.put(io.BytesIO(encoded(flipped, operation.options["output"])))
            with rows.begin() as session:
                if "fail" in behaviour:
                    operations.fail(session, lease, *behaviour["fail"])
                else:
                    result = {"tile": 256, "precision": "bf16", "seconds": {"restore": 0.25}, "width": 83, "height": 71}
                    operations.succeed(session, lease, output, result)
            if behaviour.get("tells", True):
                queue.notify_done(lease.operation_id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield behaviour
    stop.set()
    thread.join()
    queue.close()


@pytest.mark.usefixtures("worker")
def test_an_image_comes_back_as_an_image(client: httpx.Client, register: Register) -> None:
    register()
    answer = client.post(PATH, content=encoded(pixels()), headers=PNG)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-drtl-model"] == "scanner@1"
    assert answer.headers["x-drtl-tile"] == "256"
    assert answer.headers["x-drtl-precision"] == "bf16"
    assert re.fullmatch(r"queue;dur=\d+\.\d, restore;dur=250\.0", answer.headers["server-timing"])
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (83, 71)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/jpeg", "JPEG"),
        ("image/*", "JPEG"),
        ("image/png, image/*;q=0.5", "PNG"),
        ("image/gif, image/jpeg;q=0.5", "JPEG"),
    ],
)
def test_accept_chooses_the_format(client: httpx.Client, register: Register, accept: str, kind: str) -> None:
    register()
    answer = client.post(
        PATH, content=encoded(pixels(), "JPEG"), headers={"Content-Type": "image/jpeg", "Accept": accept}
    )
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == kind


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("model", "expected"), [("scanner", 2), ("scanner@1", 1), ("scanner@production", 2), ("scanner@3", 3)]
)
def test_a_model_is_addressed_by_name_alias_or_version(
    client: httpx.Client, register: Register, model: str, expected: int
) -> None:
    register(versions=3, production=2)
    answer = client.post(f"/v1/models/{model}/super-resolve", files={"image": ("x", encoded(pixels()))})
    assert answer.headers["x-drtl-model"] == f"scanner@{expected}"


@pytest.mark.usefixtures("worker")
def test_respond_async_answers_at_once_and_the_result_follows(client: httpx.Client, register: Register) -> None:
    register()
    answer = client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "respond-async"})
    assert answer.status_code == 202
    location = answer.headers["location"]
    assert location == f"/v1/operations/{answer.json()['id']}"
    while (operation := client.get(location).json())["state"] in {"queued", "running"}:
        assert operation["result"] is None
    assert operation["state"] == "succeeded"
    assert client.get(operation["result"]).headers["content-type"] == "image/png"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize(
    "kind", [*("application/octet-stream", "binary/octet-stream"), "image/png", "image/pjpeg", "image/tif"]
)
def test_every_format_is_accepted_by_its_content(
    client: httpx.Client, register: Register, file_format: str, kind: str
) -> None:
    register()
    headers = {"Content-Type": kind, "Prefer": "respond-async"}
    assert client.post(PATH, content=encoded(pixels(), file_format), headers=headers).status_code == 202


def test_a_result_asked_for_too_early_is_not_ready(client: httpx.Client, register: Register) -> None:
    register()
    location = client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "respond-async"}).headers[
        "location"
    ]
    answer = client.get(f"{location}/result")
    problem(answer, 409, "not-ready")
    assert answer.headers["retry-after"] == "1"


def test_a_worker_whose_word_is_lost_is_noticed_all_the_same(
    client: httpx.Client, register: Register, worker: dict[str, Any]
) -> None:
    register()
    worker["tells"] = False
    assert client.post(PATH, content=encoded(pixels()), headers=PNG).status_code == 200


def test_a_worker_that_speaks_too_early_is_waited_for(
    client: httpx.Client, register: Register, worker: dict[str, Any]
) -> None:
    """As one does that is stopped in the middle, and leaves the image to another."""
    register()
    worker["tells early"] = True
    assert client.post(PATH, content=encoded(pixels()), headers=PNG).status_code == 200


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("bad-image", 422, "bad-image"), ("out-of-memory", 413, "too-large"), ("worker-lost", 500, "internal")],
)
def test_the_workers_refusal_is_a_problem(
    client: httpx.Client, register: Register, worker: dict[str, Any], code: str, status: int, kind: str
) -> None:
    register()
    worker["fail"] = (code, "It cannot be done.")
    answer = client.post(PATH, content=encoded(pixels()), headers=PNG)
    assert problem(answer, status, kind)["detail"] == "It cannot be done."


def test_what_is_not_done_within_the_wait_is_accepted(api_settings: Settings, register: Register) -> None:
    register()
    with connected(create_app(api_settings.model_copy(update={"wait_s": 0.3}))) as impatient:
        answer = impatient.post(PATH, content=encoded(pixels()), headers=PNG)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/operations/{answer.json()['id']}"
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad-request"),
        (b"text", 415, "unsupported-media"),
        (encoded(pixels())[:2000], 422, "bad-image"),
        (encoded(pixels(), "JPEG")[:1500], 422, "bad-image"),
        (animation("GIF"), 415, "unsupported-media"),
        (animation("PNG"), 422, "bad-image"),
        (png_bomb(), 413, "too-large"),
    ],
    ids=["empty", "text", "half a png", "half a jpeg", "gif", "apng", "bomb"],
)
def test_a_bad_image_is_refused_and_not_stored(
    client: httpx.Client, register: Register, stored: Callable[[], dict[str, int]], body: bytes, status: int, code: str
) -> None:
    register()
    before = stored()
    document = problem(client.post(PATH, content=body, headers=PNG), status, code)
    if body:
        assert document["files"][0]["name"] == "request body"
    assert stored() == before


def test_an_image_that_would_grow_too_large_is_refused(api_settings: Settings, register: Register) -> None:
    register("same-size")
    register("doubling", scale=2)
    just_fits = api_settings.model_copy(update={"max_image_pixels": 83 * 71})
    asynchronous = {**PNG, "Prefer": "respond-async"}
    with connected(create_app(just_fits)) as client:
        path = "/v1/models/{}/super-resolve"
        body = encoded(pixels())
        assert client.post(path.format("same-size"), content=body, headers=asynchronous).status_code == 202
        problem(client.post(path.format("doubling"), content=body, headers=asynchronous), 413, "too-large")


def test_a_model_that_is_not_there_is_not_found(client: httpx.Client, register: Register) -> None:
    register(production=None)
    for model in ("other", "scanner@7", "scanner@beta", "scanner@999999999999", "sc%00"):
        answer = client.post(f"/v1/models/{model}/super-resolve", content=encoded(pixels()), headers=PNG)
        problem(answer, 404, "not-found")
    answer = client.post(PATH, content=encoded(pixels()), headers=PNG)
    assert "promoted" in problem(answer, 404, "not-found")["detail"]


def test_what_cannot_be_negotiated_is_refused(client: httpx.Client, register: Register) -> None:
    register()
    problem(client.post(PATH, content=encoded(pixels()), headers={**PNG, "Accept": "image/gif"}), 406, "not-acceptable")
    typed = client.post(PATH, content=b"x", headers={"Content-Type": "text/plain"})
    detail = problem(typed, 415, "unsupported-media")["detail"]
    assert "application/octet-stream" in detail
    assert "-H 'Content-Type: image/png'" in detail
    two = [("image", ("a", encoded(pixels()))), ("image", ("b", encoded(pixels())))]
    problem(client.post(PATH, files=two), 400, "bad-request")
    problem(client.post(PATH, files={"name": (None, b"x")}), 400, "bad-request")


def test_unknown_operations_are_not_found(client: httpx.Client) -> None:
    for path in ("op_00", "op_00/result", "x"):
        problem(client.get(f"/v1/operations/{path}"), 404, "not-found")


def test_an_accepted_image_is_kept_until_it_is_done(
    client: httpx.Client, register: Register, rows: sessionmaker[Session]
) -> None:
    register()
    made = client.post(PATH, content=encoded(pixels()), headers={**PNG, "Prefer": "respond-async"}).json()
    with rows() as session:
        operation = session.get_one(Operation, made["id"])
    assert (operation.model_name, operation.model_version, operation.pixels) == ("scanner", 1, 83 * 71)
    assert operation.options == {
        "output": "png",
        "precision": "auto",
        "outscale": None,
        "ensemble": 1,
        "explain": False,
        "metadata": "keep",
        "quality": None,
    }

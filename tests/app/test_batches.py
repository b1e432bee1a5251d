"""Batches over HTTP: taken in, followed, cancelled, fetched as a zip. The test plays the worker by hand."""

import io
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core import operations, retention
from app.core.settings import Settings
from app.core.tables import Operation
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import encoded, pixels, png_bomb, zipped
from tests.app.test_models import Register, register
from tests.app.work import Hands

__all__ = ["register"]  # A fixture of the registry's tests.

Entries = list[tuple[str, bytes]]
Counted = Callable[[], dict[str, int]]
PATH = "/v1/batches"
ZIP = {"Content-Type": "application/zip"}
GOOD: Entries = [(f"{number}.png", encoded(pixels(seed=number))) for number in range(3)]


@pytest.fixture
def hands(rows: sessionmaker[Session], api_settings: Settings, register: Register) -> Iterator[Hands]:
    """A worker's hands, with a model to work with."""
    register()
    hands = Hands.of(rows, api_settings)
    yield hands
    hands.queue.close()


def send(client: httpx.Client, entries: Entries, **options: object) -> httpx.Response:
    files = [("images", entry) for entry in entries]
    return client.post(PATH, files=files, data={"model": "scanner", **{key: str(v) for key, v in options.items()}})


def accepted(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    batch: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{PATH}/{batch['id']}"
    return batch


def archive(answer: httpx.Response) -> zipfile.ZipFile:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(answer.content))


# Taking in


@pytest.mark.parametrize("way", ["form", "zip in a form", "zip with a query"])
def test_images_come_as_files_or_as_a_zip(client: httpx.Client, hands: Hands, way: str) -> None:
    options = {"model": "scanner", "precision": "fp32", "output": "webp", "ensemble": "8"}
    match way:
        case "form":
            answer = client.post(PATH, files=[("images", entry) for entry in GOOD], data=options)
        case "zip in a form":
            answer = client.post(PATH, files={"archive": ("a.zip", zipped(GOOD))}, data=options)
        case _:
            answer = client.post(PATH, content=zipped(GOOD), headers=ZIP, params=options)
    batch = accepted(answer)
    assert batch["counts"] == dict.fromkeys(batch["counts"], 0) | {"total": 3, "queued": 3}
    assert (batch["state"], batch["progress"], batch["model"]) == ("queued", 0.0, "scanner")
    whole = client.get(f"{PATH}/{batch['id']}").json()
    assert [(item["name"], item["position"], item["batch"]) for item in whole["items"]] == [
        (name, number, batch["id"]) for number, (name, _) in enumerate(GOOD)
    ]
    asked = whole["items"][0]["options"]
    assert (asked["precision"], asked["output"], asked["ensemble"]) == ("fp32", "webp", 8)
    with hands.rows() as session:
        blob = session.get_one(Operation, whole["items"][1]["id"]).input_blob
    assert blob is not None
    with hands.storage.open(blob) as file:
        assert file.read() == GOOD[1][1]


def test_without_a_format_each_image_keeps_its_own(client: httpx.Client, hands: Hands) -> None:
    entries = [("a.png", encoded(pixels())), ("b.jpg", encoded(pixels(), "JPEG"))]
    batch = accepted(send(client, entries))
    items = client.get(f"{PATH}/{batch['id']}").json()["items"]
    assert [item["options"]["output"] for item in items] == ["png", "jpeg"]


def test_an_unusable_file_fails_alone(client: httpx.Client, hands: Hands) -> None:
    entries = [("text.png", b"text"), GOOD[0], ("half.png", GOOD[1][1][:500]), ("bomb.png", png_bomb())]
    batch = accepted(send(client, entries))
    assert (batch["counts"]["failed"], batch["counts"]["queued"], batch["state"]) == (3, 1, "queued")
    items = client.get(f"{PATH}/{batch['id']}").json()["items"]
    assert [item["name"] for item in items] == [name for name, _ in entries]
    codes = [item["error"] and item["error"]["code"] for item in items]
    assert codes == ["unsupported-media", None, "bad-image", "too-large"]
    problem(client.get(f"/v1/operations/{items[0]['id']}/result"), 415, "unsupported-media")
    assert client.post(f"/v1/operations/{items[0]['id']}/cancel").json()["state"] == "failed"


@pytest.mark.parametrize(
    ("entries", "status", "code"),
    [
        ([("a.png", b"text"), ("b.png", b"more text")], 415, "unsupported-media"),
        ([("a.png", b"text"), ("b.png", GOOD[0][1][:500])], 422, "unprocessable"),
        ([("bomb.png", png_bomb())], 413, "too-large"),
    ],
)
def test_an_upload_without_a_usable_image_is_refused_and_leaves_nothing(
    client: httpx.Client, hands: Hands, stored: Counted, entries: Entries, status: int, code: str
) -> None:
    before = stored()
    document = problem(send(client, entries), status, code)
    assert [file["name"] for file in document["files"]] == [name for name, _ in entries]
    assert stored() == before


def test_a_batch_needs_a_model_and_images_and_nothing_unheard_of(client: httpx.Client, hands: Hands) -> None:
    files = [("images", GOOD[0])]
    assert problem(client.post(PATH, files=files), 422, "unprocessable")["pointer"] == "/model"
    for strange, pointer in (
        ({"modle": "x"}, "/modle"),
        ({"outscale": "9"}, "/outscale"),
        ({"output": "gif"}, "/output"),
    ):
        answer = client.post(PATH, files=files, data={"model": "scanner", **strange})
        assert problem(answer, 422, "unprocessable")["pointer"] == pointer
    problem(client.post(PATH, files=files, data={"model": "unknown"}), 404, "not-found")
    problem(client.post(PATH, files=[("photos", GOOD[0])], data={"model": "scanner"}), 422, "unprocessable")
    problem(client.post(PATH, files={"model": (None, b"scanner")}), 400, "bad-request")
    told = problem(client.post(PATH, json={"model": "scanner"}), 415, "unsupported-media")["detail"]
    assert all(named in told for named in ("application/json", "multipart/form-data", "`images`", "application/zip"))


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "c:/a.png", "a\\..\\b.png"])
def test_a_zip_that_points_outside_is_refused(client: httpx.Client, hands: Hands, stored: Counted, name: str) -> None:
    before = stored()
    answer = client.post(PATH, content=zipped([GOOD[0], (name, GOOD[1][1])]), headers=ZIP, params={"model": "scanner"})
    assert problem(answer, 422, "bad-archive")["files"][0]["name"] == name
    assert stored() == before


def test_what_is_no_zip_is_refused(client: httpx.Client, hands: Hands) -> None:
    for body in (b"PK\3\4 but no more", GOOD[0][1]):
        problem(client.post(PATH, content=body, headers=ZIP, params={"model": "scanner"}), 422, "bad-archive")


def test_too_many_images_are_refused(api_settings: Settings, hands: Hands) -> None:
    with connected(create_app(api_settings.model_copy(update={"max_batch_images": 2}))) as client:
        problem(send(client, GOOD), 413, "too-large")
        answer = client.post(PATH, content=zipped(GOOD), headers=ZIP, params={"model": "scanner"})
        assert "at most 2" in problem(answer, 413, "too-large")["detail"]
        assert send(client, GOOD[:2]).status_code == 202


def test_names_that_cannot_be_printed_or_kept_are_shown_as_far_as_they_can(client: httpx.Client, hands: Hands) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nscanner\r\n'
        b'--b\r\nContent-Disposition: form-data; name="images"; filename="'
        + b"x" * 400
        + b'\x01.png"\r\n\r\n'
        + GOOD[0][1]
        + b"\r\n--b--\r\n"
    )
    answer = client.post(PATH, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    (item,) = client.get(answer.headers["location"]).json()["items"]
    assert item["name"] == "x" * 250 + "\N{REPLACEMENT CHARACTER}.png"


@pytest.mark.parametrize(
    ("written", "name"),
    [("%22a%22.png", '"a".png'), ("50%.png", "50%.png"), ("%41%0A.png", "%41\N{REPLACEMENT CHARACTER}.png")],
)
def test_a_name_is_what_it_was_before_a_browser_wrote_it_between_quotation_marks(
    client: httpx.Client, hands: Hands, written: str, name: str
) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="images"; filename="{written}"\r\n\r\n'
    body = head.encode() + GOOD[0][1] + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post(PATH, content=body, headers=headers, params={"model": "scanner"})
    (item,) = client.get(answer.headers["location"]).json()["items"]
    assert item["name"] == name


@pytest.mark.parametrize("way", ["form", "zip"])
def test_a_screenshot_of_macos_keeps_its_name(client: httpx.Client, hands: Hands, way: str) -> None:
    entries = [("Screenshot at 9.41\u202fPM.png", GOOD[0][1])]
    content: dict[str, Any] = {"content": zipped(entries), "headers": ZIP, "params": {"model": "scanner"}}
    batch = accepted(send(client, entries) if way == "form" else client.post(PATH, **content))
    (item,) = client.get(f"{PATH}/{batch['id']}").json()["items"]
    assert item["name"] == entries[0][0]
    hands.succeed(hands.claim())
    with archive(client.get(batch["result"])) as results:
        assert results.namelist() == [entries[0][0]]


def test_the_same_key_makes_one_batch(client: httpx.Client, hands: Hands, stored: Counted) -> None:
    def post(key: str, entries: Entries) -> httpx.Response:
        files = [("images", entry) for entry in entries]
        return client.post(PATH, files=files, data={"model": "scanner"}, headers={"Idempotency-Key": key})

    first = accepted(post("monday", GOOD))
    again = post("monday", GOOD)
    assert accepted(again)["id"] == first["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert (stored()["batches"], stored()["operations"]) == (1, 3)
    problem(post("monday", GOOD[:2]), 422, "idempotency-mismatch")
    problem(post("tuesday", [("a.png", b"text")]), 415, "unsupported-media")
    accepted(post("tuesday", GOOD[:1]))


def test_a_key_whose_batch_has_expired_makes_a_new_one(
    client: httpx.Client, hands: Hands, rows: sessionmaker[Session]
) -> None:
    def post() -> httpx.Response:
        return client.post(
            PATH, files=[("images", GOOD[0])], data={"model": "scanner"}, headers={"Idempotency-Key": "monday"}
        )

    first = accepted(post())
    hands.succeed(hands.claim())
    time.sleep(0.05)
    with rows.begin() as session:
        retention.expire_operations(session, 0.01)
    problem(client.get(f"{PATH}/{first['id']}"), 404, "not-found")
    again = post()
    assert accepted(again)["id"] != first["id"]
    assert "idempotency-replayed" not in again.headers


# Following


def test_a_batch_adds_up_its_images(client: httpx.Client, hands: Hands) -> None:
    entries = [("large.png", encoded(pixels(600, 500))), *GOOD[:2]]
    location = f"{PATH}/{accepted(send(client, entries))['id']}"
    leases = [hands.claim() for _ in range(3)]
    assert client.get(location).json()["state"] == "running"
    hands.progress(leases[0], 0.5)
    total = 600 * 500 + 2 * 83 * 71
    assert client.get(location).json()["progress"] == pytest.approx(0.5 * 600 * 500 / total)
    hands.fail(leases[1], "bad-image")
    batch = client.get(location).json()
    assert (batch["counts"]["running"], batch["counts"]["failed"], batch["finished_at"]) == (2, 1, None)
    assert batch["progress"] == pytest.approx((0.5 * 600 * 500 + 83 * 71) / total)
    for lease in (leases[0], leases[2]):
        hands.succeed(lease)
    batch = client.get(location).json()
    assert (batch["state"], batch["progress"]) == ("succeeded", 1.0)
    assert batch["finished_at"] is not None
    assert batch["items"][1]["error"]["code"] == "bad-image"


def test_a_batch_none_of_whose_images_could_be_restored_has_failed(client: httpx.Client, hands: Hands) -> None:
    location = f"{PATH}/{accepted(send(client, GOOD[:1]))['id']}"
    hands.fail(hands.claim(), "out-of-memory")
    assert client.get(location).json()["state"] == "failed"
    problem(client.get(f"{location}/result"), 409, "conflict")


def test_the_images_of_a_batch_are_paged(client: httpx.Client, hands: Hands) -> None:
    location = f"{PATH}/{accepted(send(client, GOOD))['id']}"
    page = client.get(location, params={"limit": 2}).json()
    rest = client.get(location, params={"limit": 2, "after": page["next"]}).json()
    assert [item["position"] for item in page["items"] + rest["items"]] == [0, 1, 2]
    assert (page["counts"]["total"], rest["next"]) == (3, None)


def test_batches_are_paged_newest_first(client: httpx.Client, hands: Hands) -> None:
    made = [accepted(send(client, GOOD[:1]))["id"] for _ in range(3)]
    page = client.get(PATH, params={"limit": 2}).json()
    rest = client.get(PATH, params={"after": page["next"]}).json()
    assert [batch["id"] for batch in page["items"] + rest["items"]] == made[::-1]
    assert [batch["counts"]["total"] for batch in page["items"]] == [1, 1]


def test_unknown_batches_are_not_found(client: httpx.Client) -> None:
    for path in ("batch_00", "batch_00/result", "x", "op_00"):
        problem(client.get(f"{PATH}/{path}"), 404, "not-found")
    problem(client.post(f"{PATH}/batch_00/cancel"), 404, "not-found")


def test_a_single_image_goes_before_a_batch_that_was_there_first(client: httpx.Client, hands: Hands) -> None:
    accepted(send(client, GOOD * 3))
    first_of_batch = hands.claim()
    single = client.post(
        "/v1/models/scanner/super-resolve",
        content=GOOD[0][1],
        headers={"Content-Type": "image/png", "Prefer": "respond-async"},
    ).json()
    assert first_of_batch.operation_id != single["id"]
    assert single["id"] in {hands.claim().operation_id for _ in range(2)}


# Cancelling


def test_a_cancelled_batch_keeps_what_is_done(client: httpx.Client, hands: Hands) -> None:
    location = f"{PATH}/{accepted(send(client, GOOD))['id']}"
    hands.succeed(hands.claim(), b"first")
    running = hands.claim()

    def cancelled() -> dict[str, Any]:
        answer = client.post(f"{location}/cancel")
        assert answer.status_code == 202
        assert answer.json()["state"] == "cancelling"
        counts: dict[str, Any] = answer.json()["counts"]
        return counts

    cancelled()
    counts = cancelled()
    assert counts == dict.fromkeys(counts, 0) | {
        "total": 3,
        "succeeded": 1,
        "cancelling": 1,
        "cancelled": 1,
    }
    with hands.rows.begin() as session:
        operations.confirm_cancelled(session, running)
    assert client.get(location).json()["state"] == "cancelled"
    assert archive(client.get(f"{location}/result")).namelist() == ["0.png"]


def test_cancelling_a_batch_that_has_ended_changes_nothing(client: httpx.Client, hands: Hands) -> None:
    location = f"{PATH}/{accepted(send(client, GOOD[:1]))['id']}"
    hands.succeed(hands.claim())
    assert client.post(f"{location}/cancel").json()["state"] == "succeeded"


# Fetching


def test_the_result_is_a_zip_with_the_folders_that_were_sent(client: httpx.Client, hands: Hands) -> None:
    entries = [("roll 1/a.png", GOOD[0][1]), ("roll 1/b.jpg", encoded(pixels(), "JPEG")), ("roll 2/a.png", GOOD[1][1])]
    answer = client.post(PATH, content=zipped(entries), headers=ZIP, params={"model": "scanner", "output": "tiff"})
    batch = accepted(answer)
    for _ in entries:
        lease = hands.claim()
        with hands.rows() as session:
            position = session.get_one(Operation, lease.operation_id).position
        hands.succeed(lease, f"image {position}".encode() * 1000)
    answer = client.get(batch["result"])
    assert answer.headers["content-disposition"] == f'attachment; filename="{batch["id"]}.zip"'
    with archive(answer) as results:
        assert results.namelist() == ["roll 1/a.tif", "roll 1/b.tif", "roll 2/a.tif"]
        assert results.read("roll 1/b.tif") == b"image 1" * 1000
        assert results.testzip() is None


def test_a_part_of_the_result_is_there_before_the_rest_on_request(client: httpx.Client, hands: Hands) -> None:
    location = f"{PATH}/{accepted(send(client, [GOOD[0], ('0.jpg', GOOD[1][1])]))['id']}"
    partial = {"partial": True}
    problem(client.get(f"{location}/result", params=partial), 409, "not-ready")
    first = hands.claim()
    hands.succeed(first, b"one")
    answer = client.get(f"{location}/result")
    problem(answer, 409, "not-ready")
    assert answer.headers["retry-after"] == "2"
    before = archive(client.get(f"{location}/result", params=partial)).namelist()
    hands.succeed(hands.claim(), b"two")
    after = archive(client.get(f"{location}/result")).namelist()
    assert (before, after) == (["0.png"], ["0.png", "0-2.png"])


def test_auto_serves_batches_too(client: httpx.Client, hands: Hands) -> None:
    batch = accepted(send(client, GOOD, model="auto"))
    items = client.get(f"{PATH}/{batch['id']}").json()["items"]
    assert (batch["model"], [item["model"] for item in items]) == ("auto", [None] * 3)

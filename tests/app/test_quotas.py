"""What a key may use, and what it is told when it has used that up."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from app.core import jobs, keys, usage
from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.owners import look_as
from app.core.queue import Queue
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import encoded, pair_files, pixels, zipped
from tests.app.possessions import fill

LimitedClient = Callable[..., httpx.Client]
IMAGE = encoded(pixels(500, 401))  # 0.2 megapixels
LATER = {"Content-Type": "image/png", "Prefer": "respond-async"}


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str, sqlite_template: Path) -> Settings:
    (tmp_path / "drtl.sqlite3").write_bytes(sqlite_template.read_bytes())
    return Settings(data_dir=tmp_path, broker_url=valkey_url)


@pytest.fixture
def database(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = open_database(settings.database_url)
    yield sessions(engine)
    engine.dispose()


@pytest.fixture
def with_limits(settings: Settings, database: sessionmaker[Session]) -> Iterator[LimitedClient]:
    """Makes clients with keys of limits of their own."""
    opened: list[httpx.Client] = []
    with connected(create_app(settings)) as anybody:

        def client(owner: str = "lab", scopes: Sequence[str] = ("train", "infer"), **limits: int | str) -> httpx.Client:
            with database.begin() as session:
                _, token = keys.create(session, owner, scopes, limits=limits)
            headers = {"Authorization": f"Bearer {token}"}
            opened.append(httpx.Client(base_url=anybody.base_url, headers=headers, timeout=20))
            return opened[-1]

        yield client
    for each in opened:
        each.close()


def filled(database: sessionmaker[Session], settings: Settings, owner: str) -> int:
    """Give the owner something of everything; returns of how many bytes."""
    assert settings.blob_dir is not None
    fill(database, FolderStorage(settings.blob_dir), owner)
    return stored_bytes(database, owner)


def stored_bytes(database: sessionmaker[Session], owner: str) -> int:
    with database() as session:
        look_as(session, owner)
        return usage.stored_bytes(session)


def fields(header: str) -> dict[str, int]:
    """The parameters of the one policy that the header tells of."""
    name, *parameters = header.split(";")
    assert name == '"requests"'
    return {parameter.partition("=")[0]: int(parameter.partition("=")[2]) for parameter in parameters}


def test_requests_are_counted_for_each_key_and_refused_beyond_its_limit(with_limits: LimitedClient) -> None:
    limited, other = with_limits(requests_per_minute=5), with_limits()
    answers = [limited.get("/v1/jobs") for _ in range(12)]  # A minute may end among them.
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    for answer in answers:
        assert fields(answer.headers["RateLimit-Policy"]) == {"q": 5, "w": 60}
        left = fields(answer.headers["RateLimit"])
        assert 0 <= left["r"] < 5
        assert 1 <= left["t"] <= 60
        assert answer.status_code == 200 or left["r"] == 0
    problem(refused[0], 429, "too-many-requests")
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
    assert other.get("/v1/jobs").status_code == 200


def test_failures_tell_what_is_left_too_and_monitors_are_not_counted(with_limits: LimitedClient) -> None:
    client = with_limits(requests_per_minute=50)
    before = fields(client.get("/v1/jobs/job_00").headers["RateLimit"])
    after = fields(client.post("/v1/jobs", content=b"", headers={"Content-Type": "a/b"}).headers["RateLimit"])
    assert after["r"] == before["r"] - 1 or after["t"] > before["t"]
    assert "RateLimit" not in client.get("/healthz").headers


def test_calls_beyond_the_scopes_of_a_key_are_counted_too(with_limits: LimitedClient) -> None:
    client = with_limits(requests_per_minute=2, scopes=["infer"])
    answers = [client.get("/v1/jobs") for _ in range(6)]  # A minute may end among them.
    assert {answer.status_code for answer in answers} == {403, 429}
    for answer in answers:
        assert fields(answer.headers["RateLimit-Policy"]) == {"q": 2, "w": 60}
        assert fields(answer.headers["RateLimit"])["r"] < 2
    problem(answers[0], 403, "missing-scope")


def test_a_key_without_a_limit_is_not_counted(with_limits: LimitedClient) -> None:
    assert "RateLimit" not in with_limits(requests_per_minute=0).get("/v1/jobs").headers


def test_the_settings_hold_where_a_key_has_no_limit_of_its_own(settings: Settings, with_limits: LimitedClient) -> None:
    told = fields(with_limits().get("/v1/jobs").headers["RateLimit-Policy"])
    assert told["q"] == settings.key_requests_per_minute


def test_jobs_beyond_the_quota_wait_until_others_have_ended(
    with_limits: LimitedClient, database: sessionmaker[Session]
) -> None:
    client = with_limits(unfinished_jobs=1)
    dataset = client.post("/v1/datasets", files=pair_files()).json()["id"]

    def post(name: str) -> httpx.Response:
        return client.post("/v1/jobs", json={"dataset_id": dataset, "name": name, "allow_rejects": True})

    first = post("a")
    assert first.status_code == 202
    refused = post("b")
    problem(refused, 429, "quota-exhausted")
    assert int(refused.headers["Retry-After"]) > 0
    with database.begin() as session:
        jobs.request_cancel(session, first.json()["id"])
    assert post("b").status_code == 202


@pytest.mark.parametrize(
    ("limits", "allowed", "refused"),
    [({}, "normal", "high"), ({"priority": "high"}, "high", None), ({"priority": "low"}, "low", "normal")],
)
def test_a_key_makes_its_jobs_no_more_urgent_than_it_may(
    with_limits: LimitedClient, limits: dict[str, str], allowed: str, refused: str | None
) -> None:
    client = with_limits(**limits)
    dataset = client.post("/v1/datasets", files=pair_files()).json()["id"]
    body = {"dataset_id": dataset, "allow_rejects": True}
    accepted = client.post("/v1/jobs", json=body | {"name": "a", "priority": allowed})
    assert accepted.status_code == 202
    assert accepted.json()["options"]["priority"] == allowed
    if refused is not None:
        answer = client.post("/v1/jobs", json=body | {"name": "b", "priority": refused})
        assert problem(answer, 403, "forbidden")["pointer"] == "/priority"
        assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_owners_see_their_place_among_all(with_limits: LimitedClient) -> None:
    ada, bea = with_limits("ada"), with_limits("bea")

    def post(client: httpx.Client, dataset: str, name: str) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json={"dataset_id": dataset, "name": name, "allow_rejects": True})
        assert answer.status_code == 202
        return dict(answer.json())

    datasets = [client.post("/v1/datasets", files=pair_files()).json()["id"] for client in (ada, bea)]
    made = [post(ada, datasets[0], f"a{number}") for number in range(3)]
    assert [job["queue_position"] for job in made] == [1, 2, 3]
    assert post(bea, datasets[1], "b")["queue_position"] in {1, 2}
    assert ada.get(f"/v1/jobs/{made[2]['id']}").json()["queue_position"] == 4
    ada.post(f"/v1/jobs/{made[0]['id']}/cancel").raise_for_status()
    assert ada.get(f"/v1/jobs/{made[0]['id']}").json()["queue_position"] is None
    assert ada.get(f"/v1/jobs/{made[2]['id']}").json()["queue_position"] == 3


def test_pairs_and_bytes_beyond_the_quota_are_not_kept(with_limits: LimitedClient, settings: Settings) -> None:
    files = pair_files(3)
    size = sum(len(content) for _, (_, content) in files)
    few, small = with_limits("few", pairs=2), with_limits("small", stored_bytes=2 * size - 1)
    problem(few.post("/v1/datasets", files=files), 403, "over-quota")
    assert settings.blob_dir is not None
    assert not [path for path in settings.blob_dir.glob("*/*") if path.is_file()]
    assert small.post("/v1/datasets", files=files).status_code == 201
    problem(small.post("/v1/datasets", files=files), 403, "over-quota")
    assert len(small.get("/v1/datasets").json()["items"]) == 1


def test_images_beyond_the_quota_of_bytes_are_refused_packed_or_not(
    with_limits: LimitedClient, database: sessionmaker[Session], settings: Settings
) -> None:
    kept = filled(database, settings, "archive")
    small = with_limits("archive", stored_bytes=kept + len(IMAGE) + 100)
    plain = encoded(np.random.default_rng(0).integers(0, 2, (800, 800, 3), np.uint8), "BMP")  # A bit in a byte.
    packed = zipped([("plain.bmp", plain)])
    assert len(packed) < len(IMAGE) < len(plain) // 2
    in_zip = small.post("/v1/batches?model=scanner", content=packed, headers={"Content-Type": "application/zip"})
    problem(in_zip, 403, "over-quota")
    path = "/v1/models/scanner/super-resolve"
    assert small.post(path, content=IMAGE, headers=LATER).status_code == 202
    problem(small.post(path, content=IMAGE, headers=LATER), 403, "over-quota")


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/v1/models/scanner/super-resolve", "image/png", IMAGE),
        ("/v1/batches?model=scanner", "application/zip", zipped([("a.png", IMAGE)])),
    ],
)
def test_room_that_is_taken_while_a_file_is_being_kept_is_not_taken_twice(
    path: str,
    kind: str,
    body: bytes,
    with_limits: LimitedClient,
    database: sessionmaker[Session],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = filled(database, settings, "archive")
    client = with_limits("archive", stored_bytes=kept + len(IMAGE) + 100)
    put = FolderStorage.put

    def overtaken(storage: FolderStorage, content: BinaryIO, *, durable: bool = True) -> str:
        monkeypatch.setattr(FolderStorage, "put", put)
        assert client.post(path, content=body, headers={"Content-Type": kind, "Prefer": "respond-async"}).is_success
        return put(storage, content, durable=durable)

    monkeypatch.setattr(FolderStorage, "put", overtaken)
    late = client.post(path, content=body, headers={"Content-Type": kind, "Prefer": "respond-async"})
    problem(late, 403, "over-quota")
    assert stored_bytes(database, "archive") == kept + len(IMAGE)


def test_pixels_beyond_the_days_quota_are_refused_for_all_keys_of_the_owner(
    with_limits: LimitedClient, database: sessionmaker[Session], settings: Settings
) -> None:
    one, other = with_limits("lens", megapixels_per_day=1), with_limits("lens", megapixels_per_day=1)
    assert settings.blob_dir is not None
    fill(database, FolderStorage(settings.blob_dir), "lens")

    def send(client: httpx.Client) -> httpx.Response:
        return client.post("/v1/models/scanner/super-resolve", content=IMAGE, headers=LATER)

    answers = [send(one) for _ in range(4)]  # 0.8 of one megapixel; midnight may come among them.
    assert {answer.status_code for answer in answers} == {202}
    last = [send(other) for _ in range(6)][-1]
    problem(last, 429, "quota-exhausted")
    assert 0 < int(last.headers["Retry-After"]) <= 86_400


def test_what_is_refused_for_other_reasons_costs_no_pixels(
    with_limits: LimitedClient, database: sessionmaker[Session], settings: Settings
) -> None:
    client = with_limits("glass", megapixels_per_day=1)
    assert settings.blob_dir is not None
    fill(database, FolderStorage(settings.blob_dir), "glass")
    path = "/v1/models/scanner/super-resolve"
    for _ in range(8):
        problem(client.post(path, content=IMAGE, headers=LATER | {"Accept": "text/html"}), 406, "not-acceptable")
    assert client.post(path, content=IMAGE, headers=LATER).status_code == 202


@given(amounts=st.lists(st.integers(0, 50), max_size=8), limit=st.integers(1, 100))
def test_a_window_is_exceeded_exactly_when_more_than_the_limit_was_counted(
    valkey_url: str, amounts: list[int], limit: int
) -> None:
    queue = Queue(valkey_url)
    try:
        whose = secrets.token_hex(8)
        total = 0
        for amount in amounts:
            total += amount
            window = usage.count(queue, "things", whose, amount, limit, 60, now=119.0)
            assert (window.used, window.left, window.resets_in_s) == (total, max(0, limit - total), 1)
            assert window.exceeded == (total > limit)
        assert usage.count(queue, "things", whose, 1, limit, 60, now=120.0).used == 1
        assert 0 < queue.redis.ttl(f"drtl:used:things:{whose}:2") <= 120
    finally:
        queue.close()


def test_a_broker_that_is_away_refuses_nobody() -> None:
    queue = Queue("redis://127.0.0.1:9/0")
    assert not usage.count(queue, "requests", "key", 1, 1, 60).exceeded
    queue.close()


def test_what_is_stored_is_counted_for_its_owner(with_limits: LimitedClient, database: sessionmaker[Session]) -> None:
    from app.core.owners import View, ViewedSessions

    files: list[Any] = pair_files(2)
    with_limits("one").post("/v1/datasets", files=files)
    with_limits("two")
    size = sum(len(content) for _, (_, content) in files)
    for owner, expected in (("one", size), ("two", 0)):
        with ViewedSessions(database, View(owner))() as session:
            assert usage.stored_bytes(session) == expected

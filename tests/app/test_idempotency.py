"""`Idempotency-Key`: what is sent twice makes one job, and restores an image once."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import BinaryIO

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from app.api import idempotency
from app.core import retention
from app.core.database import open_database, sessions
from app.core.errors import RequestInFlight
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.tables import IdempotencyKey, Job, utc_now
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import encoded, pair_files, pixels
from tests.app.test_jobs import accepted, both_databases, on_both_databases, post_job
from tests.app.test_models import register
from tests.app.test_operations import PATH, PNG, hands
from tests.app.work import Hands
from tests.servers import eventually

__all__ = ["both_databases", "hands", "register"]  # Fixtures of other files.

Counted = Callable[[], dict[str, int]]


# Jobs


@on_both_databases
def test_a_second_post_with_the_same_key_is_answered_with_the_first_job(both_databases: Settings) -> None:
    with connected(create_app(both_databases)) as client:
        first = accepted(post_job(client, key="monday"))
        again = post_job(client, key="monday")
        assert accepted(again) == first
        assert again.headers["idempotency-replayed"] == "true"
        assert len(client.get("/v1/jobs").json()["items"]) == 1


@on_both_databases
def test_of_two_simultaneous_posts_with_one_key_one_makes_the_job(both_databases: Settings) -> None:
    with connected(create_app(both_databases)) as client:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: post_job(client, key="k"), range(4)))
        assert {answer.status_code for answer in answers} <= {202, 409}
        for answer in answers:
            if answer.status_code == 409:
                problem(answer, 409, "request-in-flight")
                assert answer.headers["retry-after"] == "1"
        assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
        assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_a_key_with_another_body_is_refused(client: httpx.Client) -> None:
    accepted(post_job(client, key="k"))
    problem(post_job(client, key="k", seed=1), 422, "idempotency-mismatch")
    problem(
        client.post("/v1/jobs", files=pair_files(3), data={"name": "scanner"}, headers={"Idempotency-Key": "k"}),
        422,
        "idempotency-mismatch",
    )


def test_a_refused_request_gives_its_key_back(client: httpx.Client, stored: Counted) -> None:
    answer = client.post("/v1/jobs", files=pair_files(1), data={"name": "scanner"}, headers={"Idempotency-Key": "k"})
    problem(answer, 422, "bad-pairs")
    assert stored() == {}
    accepted(post_job(client, key="k"))


def test_a_key_left_by_a_killed_process_blocks_only_for_a_while(
    client: httpx.Client, rows: sessionmaker[Session], api_settings: Settings
) -> None:
    accepted(post_job(client, key="k"))
    with rows.begin() as session:  # As if the process had died before it could make the job.
        session.execute(update(IdempotencyKey).values(made_id=None))
        session.execute(update(Job).values(state="cancelled"))
    problem(post_job(client, key="k"), 409, "request-in-flight")
    with rows.begin() as session:
        past = utc_now() - timedelta(seconds=api_settings.idempotency_in_flight_s + 1)
        session.execute(update(IdempotencyKey).values(created_at=past))
    accepted(post_job(client, key="k"))


def by_id(_: Session, job_id: str) -> Job:
    return Job(id=job_id)


@on_both_databases
def test_of_a_slow_request_and_one_that_took_its_key_over_one_makes_a_job(both_databases: Settings) -> None:
    engine = open_database(both_databases.database_url)
    with sessions(engine)() as slow, sessions(engine)() as quick:

        def overtaken() -> Job:  # The other believes this one to be dead.
            made, replayed = idempotency.once(quick, "k", "f", 0.0, by_id, lambda: Job(id="job_2"))
            assert (made.id, replayed) == ("job_2", False)
            return Job(id="job_1")

        with pytest.raises(RequestInFlight):
            idempotency.once(slow, "k", "f", 0.0, by_id, overtaken)
        made, replayed = idempotency.once(slow, "k", "f", 0.0, by_id, lambda: Job(id="job_3"))
        assert (made.id, replayed) == ("job_2", True)
    engine.dispose()


def test_a_slow_request_that_is_refused_leaves_its_key_to_who_took_it_over(api_settings: Settings) -> None:
    engine = open_database(api_settings.database_url)
    with sessions(engine)() as slow, sessions(engine)() as quick:
        begun, taken_over = threading.Event(), threading.Event()

        def refused() -> Job:
            begun.set()
            assert taken_over.wait(10)
            raise ZeroDivisionError

        with ThreadPoolExecutor(1) as pool:
            slower = pool.submit(idempotency.once, slow, "k", "f", 0.0, by_id, refused)
            assert begun.wait(10)

            def outlives_it() -> Job:
                taken_over.set()
                with pytest.raises(ZeroDivisionError):
                    slower.result()
                return Job(id="job_2")

            made, _ = idempotency.once(quick, "k", "f", 0.0, by_id, outlives_it)
            assert made.id == "job_2"
    engine.dispose()


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_impossible_key_is_refused(client: httpx.Client, key: str) -> None:
    assert problem(post_job(client, key=key), 422, "unprocessable")["pointer"] == "idempotency-key"


def test_the_key_row_of_a_job_names_it(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    job = accepted(post_job(client, key="k"))
    with rows() as session:
        assert session.scalars(select(IdempotencyKey.made_id)).all() == [job["id"]]


# Images


def keyed(client: httpx.Client, key: str, body: bytes, prefer: str = "respond-async", **options: int) -> httpx.Response:
    headers = {**PNG, "Prefer": prefer, "Idempotency-Key": key}
    return client.post(PATH, content=body, headers=headers, params=options)


def test_the_same_key_restores_an_image_once(client: httpx.Client, hands: Hands) -> None:
    body = encoded(pixels())
    first, again = keyed(client, "monday", body), keyed(client, "monday", body)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert len(client.get("/v1/operations").json()["items"]) == 1
    problem(keyed(client, "monday", body, quality=7), 422, "idempotency-mismatch")
    problem(keyed(client, "monday", encoded(pixels(32, 40))), 422, "idempotency-mismatch")
    hands.succeed(hands.claim())
    image = keyed(client, "monday", body, "wait=5")
    assert (image.status_code, image.content) == (200, b"restored")
    assert image.headers["idempotency-replayed"] == "true"


def test_a_refused_image_leaves_its_key_free(client: httpx.Client, hands: Hands) -> None:
    problem(keyed(client, "monday", b"text"), 415, "unsupported-media")
    problem(keyed(client, "monday", encoded(pixels()), quality=0), 422, "unprocessable")
    assert keyed(client, "monday", encoded(pixels())).status_code == 202


def test_a_key_whose_image_has_expired_restores_it_anew(
    client: httpx.Client, hands: Hands, rows: sessionmaker[Session]
) -> None:
    body = encoded(pixels())
    done, waits = keyed(client, "monday", body).json(), keyed(client, "tuesday", body).json()
    hands.succeed(hands.claim())
    time.sleep(0.05)
    with rows.begin() as session:
        retention.expire_operations(session, 0.01)
    assert keyed(client, "monday", body).json()["id"] != done["id"]
    assert keyed(client, "tuesday", body).json()["id"] == waits["id"]


@pytest.mark.parametrize("prefer", ["respond-async", "wait=1"])
def test_an_image_with_a_key_is_on_the_disk_from_the_start(
    client: httpx.Client, hands: Hands, monkeypatch: pytest.MonkeyPatch, prefer: str
) -> None:
    put, kept = FolderStorage.put, []

    def seen(storage: FolderStorage, content: BinaryIO, *, durable: bool = True) -> str:
        kept.append(durable)
        return put(storage, content, durable=durable)

    monkeypatch.setattr(FolderStorage, "put", seen)
    assert keyed(client, "monday", encoded(pixels()), prefer).status_code == 202
    assert kept == [True]


def test_a_client_that_can_come_back_for_its_image_may_hang_up(client: httpx.Client, hands: Hands) -> None:
    body = encoded(pixels())
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nIdempotency-Key: monday\r\n"
        f"Prefer: wait=9\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + body)
        (operation,) = eventually(lambda: client.get("/v1/operations").json()["items"])
        lease = hands.claim()
    time.sleep(1.2)  # Longer than a waiter looks away.
    assert client.get(f"/v1/operations/{operation['id']}").json()["state"] == "running"
    hands.succeed(lease)
    image = keyed(client, "monday", body, "wait=9")
    assert (image.status_code, image.content) == (200, b"restored")

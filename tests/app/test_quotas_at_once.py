"""What a key may keep, when it sends more than that at once: on SQLite and on PostgreSQL."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.core import keys
from app.core.settings import Settings
from app.core.tables import Dataset, IdempotencyKey, Job
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import pair_files, zip_of

AT_ONCE = 8
PAIRS = zip_of(pair_files(2))
SIZE = sum(len(content) for _, (_, content) in pair_files(2))
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def service(service_settings: Settings) -> Iterator[httpx.Client]:
    with connected(create_app(service_settings)) as client:
        yield client


@pytest.fixture
def limited(service: httpx.Client, database: sessionmaker[Session]) -> Iterator[Callable[..., httpx.Client]]:
    """Makes clients with keys of one owner."""
    opened: list[httpx.Client] = []

    def client(**limits: int) -> httpx.Client:
        with database.begin() as session:
            _, token = keys.create(session, "lab", ["train"], limits=limits)
        headers = {"Authorization": f"Bearer {token}"}
        opened.append(httpx.Client(base_url=service.base_url, headers=headers, timeout=60))
        return opened[-1]

    yield client
    for each in opened:
        each.close()


def at_once(send: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    start = threading.Barrier(AT_ONCE)

    def when_all_are_there(number: int) -> httpx.Response:
        start.wait()
        return send(number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(when_all_are_there, range(AT_ONCE)))


def kept(database: sessionmaker[Session]) -> dict[str, int]:
    with database() as session:
        rows = {table.__name__: session.scalar(select(func.count()).select_from(table)) for table in (Dataset, Job)}
        rows["bytes"] = session.scalar(select(func.sum(Dataset.stored_bytes)))
        rows["keys"] = session.scalar(select(func.count()).select_from(IdempotencyKey))
    return {name: number or 0 for name, number in rows.items()}


def test_as_many_uploads_become_jobs_as_the_key_may_have(
    limited: Callable[..., httpx.Client], database: sessionmaker[Session]
) -> None:
    client = limited(unfinished_jobs=2)

    def post(number: int) -> httpx.Response:
        headers = {**ZIP, "Idempotency-Key": str(number)}
        return client.post(f"/v1/jobs?name=m{number}&allow_rejects=true", content=PAIRS, headers=headers)

    answers = at_once(post)
    assert Counter(answer.status_code for answer in answers) == {202: 2, 429: AT_ONCE - 2}
    for answer in answers:
        if answer.status_code == 429:
            problem(answer, 429, "quota-exhausted")
    assert kept(database) == {"Job": 2, "Dataset": 2, "bytes": 2 * SIZE, "keys": 2}


def test_as_many_jobs_of_a_stored_dataset_are_queued_as_the_key_may_have(
    limited: Callable[..., httpx.Client], database: sessionmaker[Session]
) -> None:
    client = limited(unfinished_jobs=2)
    dataset = client.post("/v1/datasets", content=PAIRS, headers=ZIP).json()["id"]

    def post(number: int) -> httpx.Response:
        return client.post("/v1/jobs", json={"dataset_id": dataset, "name": f"m{number}", "allow_rejects": True})

    assert Counter(answer.status_code for answer in at_once(post)) == {202: 2, 429: AT_ONCE - 2}
    assert kept(database) == {"Job": 2, "Dataset": 1, "bytes": SIZE, "keys": 0}


def test_no_more_bytes_are_kept_than_the_key_may_keep_whichever_way_they_come(
    limited: Callable[..., httpx.Client], database: sessionmaker[Session]
) -> None:
    client, other = limited(stored_bytes=3 * SIZE - 1), limited(stored_bytes=3 * SIZE - 1)

    def post(number: int) -> httpx.Response:
        if number % 2:
            return client.post("/v1/datasets", content=PAIRS, headers=ZIP)
        return other.post(f"/v1/jobs?name=m{number}&allow_rejects=true", content=PAIRS, headers=ZIP)

    answers = at_once(post)
    refused = [answer for answer in answers if not answer.is_success]
    assert len(refused) == AT_ONCE - 2
    for answer in refused:
        problem(answer, 403, "over-quota")
    jobs = sum(answer.status_code == 202 for answer in answers)
    assert kept(database) == {"Job": jobs, "Dataset": 2, "bytes": 2 * SIZE, "keys": 0}

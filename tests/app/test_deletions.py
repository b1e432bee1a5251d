"""What owners delete is gone, in the order of what names what, on SQLite and on PostgreSQL."""

import io
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.api import examples
from app.core import consistency, deletions, deliveries, jobs, repository, retention, usage, webhooks
from app.core.consistency import Holdings
from app.core.database import read_sessions
from app.core.deliveries import Answer
from app.core.errors import Conflict, NotFound
from app.core.folder_storage import FolderStorage
from app.core.owners import OPEN, View, ViewedSessions, look_as
from app.core.settings import Settings
from app.core.tables import (
    Dataset,
    IdempotencyKey,
    Job,
    JobEvent,
    ModelAlias,
    ModelVersion,
    Pair,
    WebhookDelivery,
    utc_now,
)
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import pair_files
from tests.app.possessions import WEBHOOK_KEY, report

Rows = sessionmaker[Session]
Upload = Callable[[], str]
Order = Callable[..., str]
Train = Callable[..., str]


@pytest.fixture
def settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"wait_s": 1.0, "webhook_key": WEBHOOK_KEY})


@pytest.fixture
def storage(settings: Settings) -> FolderStorage:
    assert settings.blob_dir is not None
    return FolderStorage(settings.blob_dir)


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    with connected(create_app(settings)) as client:
        yield client


@pytest.fixture
def train(order: Order, database: Rows, storage: FolderStorage) -> Train:
    """Orders a job, and plays the worker's part to its end; returns its id."""

    def make(name: str = "scanner", verdict: str = "gain") -> str:
        job_id = order(name)
        with database.begin() as session:
            lease = jobs.claim_next(session, "task", 60)
            assert lease is not None
            assert lease.job_id == job_id
            jobs.save_preview(session, lease, storage.put(io.BytesIO(f"preview of {job_id}".encode())))
            weights = storage.put(io.BytesIO(f"weights of {job_id}".encode()))
            jobs.succeed(
                session,
                lease,
                metrics=examples.METRICS,
                verdict=verdict,
                explanation="So it is.",
                weights_blob=weights,
                card={},
            )
        return job_id

    return make


@pytest.fixture
def upload(database: Rows, storage: FolderStorage) -> Upload:
    """Stores two pairs as an upload would, without examining them; returns the dataset's id."""

    def make() -> str:
        names = [f"{number:03}" for number in range(2)]
        blobs = {name: storage.put(io.BytesIO(f"{name} {secrets.token_hex(4)}".encode())) for name in names}
        pairs = [
            Pair(position=place, name=name, clean_blob=blobs[name], distorted_blob=blobs[name], report=report())
            for place, name in enumerate(names)
        ]
        with database.begin() as session:
            look_as(session, OPEN)
            dataset = Dataset(scale=1, stored_bytes=1000, pairs=pairs)
            session.add(dataset)
        return dataset.id

    return make


@pytest.fixture
def order(client: httpx.Client, upload: Upload) -> Order:
    """Orders a job on pairs that were uploaded; returns its id."""

    def make(name: str, dataset_id: str | None = None, **headers: str) -> str:
        options = {"name": name, "new_version": True, "dataset_id": dataset_id or upload()}
        answer = client.post("/v1/jobs", json=options, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    return make


def dataset_of(client: httpx.Client, job_id: str) -> str:
    return str(client.get(f"/v1/jobs/{job_id}").json()["dataset_id"])


def gone(client: httpx.Client, path: str) -> None:
    """Delete it, and see that it is there no more, for another DELETE neither."""
    deleted = client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(client.get(path), 404, "not-found")
    problem(client.delete(path), 404, "not-found")


def test_a_model_its_job_and_its_dataset_go_in_this_order_and_leave_nothing(
    client: httpx.Client, train: Train, database: Rows, engine: Engine, settings: Settings, storage: FolderStorage
) -> None:
    job_id = train()
    dataset_id = dataset_of(client, job_id)
    model, job, dataset = "/v1/models/scanner/versions/1", f"/v1/jobs/{job_id}", f"/v1/datasets/{dataset_id}"
    holdings = Holdings(settings, database, read_sessions(engine), storage)

    def problems_found() -> list[str]:
        return [finding.message for finding in consistency.examine(holdings) if finding.state == "problem"]

    assert "scanner@1" in problem(client.delete(job), 409, "conflict")["detail"]
    assert job_id in problem(client.delete(dataset), 409, "conflict")["detail"]
    gone(client, model)
    problem(client.get("/v1/models/scanner"), 404, "not-found")
    problem(client.get(f"{model}/weights"), 404, "not-found")
    assert problems_found() == []
    assert job_id in problem(client.delete(dataset), 409, "conflict")["detail"]
    gone(client, job)
    for rest in ("/events", "/graph", "/preview"):
        problem(client.get(job + rest), 404, "not-found")
    assert problems_found() == []
    gone(client, dataset)
    problem(client.get(f"{dataset}/pairs/0/clean"), 404, "not-found")

    assert problems_found() == []
    with database() as session:
        for table in (Dataset, Pair, Job, JobEvent, ModelVersion, ModelAlias, IdempotencyKey):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        assert usage.stored_bytes(session) == 0
        keep = repository.referenced_blobs(session)
    assert keep == set()
    assert storage.sweep(keep, grace_s=-1.0) == 2 + 1 + 1  # of the pairs, the preview, the weights
    assert [file for file in storage.inventory() if file.key is not None] == []


def test_a_blob_that_another_row_names_stays(client: httpx.Client, database: Rows, storage: FolderStorage) -> None:
    """Files are kept once, however often they were uploaded."""
    first, second = (client.post("/v1/datasets", files=pair_files(2)).json()["id"] for _ in range(2))
    gone(client, f"/v1/datasets/{first}")
    with database() as session:
        assert storage.sweep(repository.referenced_blobs(session), grace_s=-1.0) == 0
    assert client.get(f"/v1/datasets/{second}/pairs/0/clean").status_code == 200


# Models


def test_a_version_goes_with_the_aliases_that_point_at_it(client: httpx.Client, train: Train) -> None:
    train()
    train()
    client.put("/v1/models/scanner/aliases/before", json={"version": 1})
    client.put("/v1/models/scanner/aliases/beta", json={"version": 2})
    assert client.get("/v1/models/scanner").json()["aliases"] == {"production": 2, "before": 1, "beta": 2}
    gone(client, "/v1/models/scanner/versions/2")
    model = client.get("/v1/models/scanner").json()
    assert (model["versions"], model["aliases"]) == ([1], {"before": 1})
    headers = {"Content-Type": "image/png"}
    for reference in ("scanner", "scanner@2", "scanner@beta", "auto"):
        problem(client.post(f"/v1/models/{reference}/super-resolve", content=b"x", headers=headers), 404, "not-found")


def test_auto_chooses_among_what_is_left(client: httpx.Client, train: Train, database: Rows) -> None:
    train("one")
    train("other")
    gone(client, "/v1/models/one/versions/1")
    with database() as session:
        look_as(session, OPEN)
        assert [model.name for model in repository.promoted_models(session)] == ["other"]


def test_the_number_of_a_deleted_version_is_not_used_again_while_its_job_is_known(
    client: httpx.Client, train: Train
) -> None:
    train()
    second = train()
    gone(client, "/v1/models/scanner/versions/2")
    third = train()
    assert client.get(f"/v1/jobs/{third}").json()["model"]["version"] == 3
    assert client.get(f"/v1/jobs/{second}").json()["model"]["version"] == 2  # What it made, though it is gone.
    gone(client, "/v1/models/scanner")
    train()
    assert client.get("/v1/models/scanner").json()["versions"] == [4]


def test_numbers_are_each_owners_own(client: httpx.Client, train: Train, database: Rows) -> None:
    """What another has made under the same name, and deleted, does not count."""
    with database.begin() as session:
        session.add(Dataset(id="ds_1", owner="lab", scale=1))
        session.flush()
        session.add(Job(owner="lab", name="scanner", dataset_id="ds_1", options={}, state="failed", model_version=7))
    train()
    assert client.get("/v1/models/scanner").json()["versions"] == [1]


def test_a_model_goes_with_all_its_versions_and_aliases(client: httpx.Client, train: Train, database: Rows) -> None:
    train()
    train()
    train("other")
    client.put("/v1/models/scanner/aliases/before", json={"version": 1})
    gone(client, "/v1/models/scanner")
    with database() as session:
        assert {alias.name for alias in session.scalars(select(ModelAlias))} == {"other"}
    assert [model["name"] for model in client.get("/v1/models").json()["items"]] == ["other"]


def test_a_model_to_which_a_job_would_add_a_version_is_not_deleted(
    client: httpx.Client, train: Train, order: Order
) -> None:
    """It would come back by itself."""
    train()
    making = order("scanner")
    assert making in problem(client.delete("/v1/models/scanner"), 409, "conflict")["detail"]
    assert client.get("/v1/models/scanner").json()["versions"] == [1]
    client.post(f"/v1/jobs/{making}/cancel")
    gone(client, "/v1/models/scanner")


def test_one_version_may_be_deleted_while_a_job_makes_the_next(
    client: httpx.Client, train: Train, order: Order
) -> None:
    train()
    making = order("scanner")
    gone(client, "/v1/models/scanner/versions/1")
    problem(client.delete("/v1/models/scanner"), 404, "not-found")  # There is none yet, whatever is being made.
    assert client.get(f"/v1/jobs/{making}").json()["state"] == "queued"


@pytest.mark.parametrize("path", ["/nobody", "/scanner/versions/9", "/scanner/versions/x", "/%00", "/scanner@1"])
def test_what_is_no_model_cannot_be_deleted(client: httpx.Client, train: Train, path: str) -> None:
    train()
    problem(client.delete(f"/v1/models{path}"), 404, "not-found")
    assert client.get("/v1/models/scanner").json()["versions"] == [1]


# Jobs


def test_a_job_that_has_not_ended_is_not_deleted(client: httpx.Client, order: Order, database: Rows) -> None:
    job_id = order("scanner")
    path = f"/v1/jobs/{job_id}"
    problem(client.delete(path), 409, "conflict")
    with database.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
    assert lease is not None
    problem(client.delete(path), 409, "conflict")
    client.post(f"{path}/cancel")
    assert "Cancel it first" in problem(client.delete(path), 409, "conflict")["detail"]
    with database.begin() as session:
        jobs.confirm_cancelled(session, lease)
    gone(client, path)


def test_the_key_that_a_deleted_job_was_ordered_by_orders_another(
    client: httpx.Client, order: Order, upload: Upload
) -> None:
    pairs, monday, tuesday = upload(), {"Idempotency-Key": "monday"}, {"Idempotency-Key": "tuesday"}
    first, other = order("scanner", pairs, **monday), order("other", pairs, **tuesday)
    assert order("scanner", pairs, **monday) == first
    client.post(f"/v1/jobs/{first}/cancel")
    gone(client, f"/v1/jobs/{first}")
    assert order("scanner", pairs, **monday) != first
    assert order("other", pairs, **tuesday) == other


def test_a_stream_of_a_job_that_is_deleted_ends(client: httpx.Client, order: Order, database: Rows) -> None:
    job_id = order("scanner")
    with database.begin() as session:
        jobs.record(session, job_id, "progress", phase="before")
    heard = threading.Event()

    def listen() -> list[str]:
        lines = []
        headers = {"Accept": "text/event-stream"}
        with httpx.stream("GET", f"{client.base_url}/v1/jobs/{job_id}/events", headers=headers, timeout=6) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if "before" in line:
                    heard.set()
        return lines

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        assert heard.wait(5)
        with database.begin() as session:  # In one moment, so that the stream does not see it end first.
            jobs.request_cancel(session, job_id)
            deletions.delete_job(session, job_id)
        lines = listening.result(5)
    assert not any("cancelled" in line for line in lines)
    problem(client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}), 404, "not-found")


def test_messages_about_a_deleted_job_go_with_it_and_one_on_its_way_does_no_harm(
    client: httpx.Client, train: Train, database: Rows, settings: Settings
) -> None:
    with database.begin() as session:
        look_as(session, OPEN)
        wanted = ["job.started", "job.succeeded"]
        webhook = webhooks.register(session, settings, "https://hooks.example/x", wanted, "").id
    kept = train("kept")
    job_id = train()
    path = f"/v1/webhooks/{webhook}/deliveries"

    def told_of() -> set[str]:
        return {delivery["job_id"] for delivery in client.get(path).json()["items"]}

    assert told_of() == {kept, job_id}
    with database.begin() as session:
        on_their_way = deliveries.claim(session, 60.0, at_most=2)
    assert {claim.event for claim in on_their_way} == {"job.started"}
    gone(client, "/v1/models/scanner")
    gone(client, f"/v1/jobs/{job_id}")
    assert told_of() == {kept}
    with database.begin() as session:
        states = [deliveries.note(session, claim, Answer(0.1, status=500), settings) for claim in on_their_way]
    assert sorted(states, key=str) == [None, "pending"]  # The answer about what is gone is noted nowhere.
    with database.begin() as session:
        assert deliveries.pending(session) == 2
        assert {row.job_id for row in session.scalars(select(WebhookDelivery))} == {kept}


# Datasets


def test_a_dataset_says_which_jobs_name_it(client: httpx.Client, order: Order, upload: Upload) -> None:
    dataset_id = upload()
    path = f"/v1/datasets/{dataset_id}"
    naming = [order(f"m{number}", dataset_id) for number in range(2)]
    detail = problem(client.delete(path), 409, "conflict")["detail"]
    assert all(job_id in detail for job_id in naming)
    naming += [order(f"m{number}", dataset_id) for number in range(2, 8)]
    detail = problem(client.delete(path), 409, "conflict")["detail"]
    assert naming[4] in detail
    assert naming[5] not in detail
    assert "and 3 more" in detail
    for job_id in naming:
        client.post(f"/v1/jobs/{job_id}/cancel")
        gone(client, f"/v1/jobs/{job_id}")
    gone(client, path)


def test_a_dataset_that_anothers_job_names_stays_and_nothing_is_told_of_that_job(
    client: httpx.Client, upload: Upload, database: Rows
) -> None:
    """Only an admin's key can have named it."""
    dataset_id = upload()
    with database.begin() as session:
        session.add(Job(id="job_00", owner="admin", name="n", dataset_id=dataset_id, options={}, state="failed"))
    detail = problem(client.delete(f"/v1/datasets/{dataset_id}"), 409, "conflict")["detail"]
    assert "1 of another owner's jobs" in detail
    assert "job_00" not in detail
    admins = ViewedSessions(database, View("admin", sees_all=True))
    with pytest.raises(Conflict, match="job_00"), admins.begin() as session:
        deletions.delete_dataset(session, dataset_id)


def test_what_is_deleted_makes_room_for_other_uploads(client: httpx.Client, upload: Upload, database: Rows) -> None:
    first = upload()
    second = upload()

    def kept() -> int:
        with database() as session:
            look_as(session, OPEN)
            return usage.stored_bytes(session)

    assert kept() == 2000
    gone(client, f"/v1/datasets/{first}")
    assert kept() == 1000
    gone(client, f"/v1/datasets/{second}")
    assert kept() == 0


# At the same moment


def beside(held: Session, other: Callable[[], Any]) -> Any:
    """What the other call comes to that begins while the session's transaction is open; that is committed meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        answer: Future[Any] = pool.submit(other)
        with pytest.raises(TimeoutError):
            answer.result(0.5)  # It waits.
        held.commit()
        return answer.result(20)


def test_a_job_that_comes_to_name_a_dataset_while_it_is_deleted_does_not_find_it(
    client: httpx.Client, upload: Upload, database: Rows
) -> None:
    dataset_id = upload()
    with database() as session:
        deletions.delete_dataset(session, dataset_id)
        asked = {"name": "scanner", "dataset_id": dataset_id}
        late = beside(session, lambda: client.post("/v1/jobs", json=asked))
    problem(late, 404, "not-found")
    assert client.get("/v1/jobs").json()["items"] == []


def test_a_dataset_that_a_job_has_just_come_to_name_is_not_deleted(
    client: httpx.Client, upload: Upload, database: Rows
) -> None:
    dataset_id = upload()
    with database() as session:
        session.add(Job(id="job_00", name="scanner", dataset_id=dataset_id, options={}))
        session.flush()
        late = beside(session, lambda: client.delete(f"/v1/datasets/{dataset_id}"))
    assert "job_00" in problem(late, 409, "conflict")["detail"]


def test_an_alias_is_not_pointed_at_a_version_that_is_being_deleted(
    client: httpx.Client, train: Train, database: Rows
) -> None:
    train()
    train()
    with database() as session:
        deletions.delete_version(session, "scanner", 1)
        late = beside(session, lambda: client.put("/v1/models/scanner/aliases/beta", json={"version": 1}))
    problem(late, 404, "not-found")
    assert client.get("/v1/models/scanner").json()["aliases"] == {"production": 2}


def test_an_alias_that_has_just_come_to_point_at_a_version_goes_with_it(
    client: httpx.Client, train: Train, database: Rows
) -> None:
    train()
    train()
    with database() as session:
        repository.set_alias(session, "scanner", "beta", 1)
        late = beside(session, lambda: client.delete("/v1/models/scanner/versions/1"))
    assert late.status_code == 204
    assert client.get("/v1/models/scanner").json()["aliases"] == {"production": 2}


def test_an_alias_that_moves_away_from_a_version_in_this_moment_stays(
    client: httpx.Client, train: Train, database: Rows
) -> None:
    train()
    train(verdict="no_gain")
    with database() as session:
        repository.set_alias(session, "scanner", "production", 2)
        late = beside(session, lambda: client.delete("/v1/models/scanner/versions/1"))
    assert late.status_code == 204
    assert client.get("/v1/models/scanner").json()["aliases"] == {"production": 2}


def test_an_alias_may_move_away_from_a_version_that_is_being_deleted(
    client: httpx.Client, train: Train, database: Rows
) -> None:
    train()
    train(verdict="no_gain")
    with database() as session:
        deletions.delete_version(session, "scanner", 1)
        late = beside(session, lambda: client.put("/v1/models/scanner/aliases/production", json={"version": 2}))
    assert late.status_code == 200
    assert client.get("/v1/models/scanner").json()["aliases"] == {"production": 2}


def test_of_several_who_delete_the_same_one_does(client: httpx.Client, train: Train) -> None:
    for _ in range(3):
        job_id = train()
        version = client.get(f"/v1/jobs/{job_id}").json()["model"]["version"]
        train()
        for path in (
            f"/v1/models/scanner/versions/{version}",
            "/v1/models/scanner",
            f"/v1/jobs/{job_id}",
            f"/v1/datasets/{dataset_of(client, job_id)}",
        ):
            with ThreadPoolExecutor(4) as pool:
                answers = [answer.status_code for answer in pool.map(client.delete, [path] * 4)]
            assert sorted(answers) == [204, 404, 404, 404], path


def test_uploads_past_their_time_are_left_to_whoever_deletes_them(
    upload: Upload, database: Rows, engine: Engine
) -> None:
    dataset_id = upload()
    with database.begin() as session:
        session.get_one(Dataset, dataset_id).created_at = utc_now() - timedelta(days=365)
    if engine.dialect.name == "postgresql":
        with database() as held, database() as sweep:
            deletions.delete_dataset(held, dataset_id)
            retention.expire_datasets(sweep, 60.0)
            sweep.commit()
            held.commit()
    with database.begin() as session:
        retention.expire_datasets(session, 60.0)
    with database() as session, pytest.raises(NotFound):
        repository.get_dataset(session, dataset_id)


def test_a_page_of_another_origin_deletes_nothing(client: httpx.Client, train: Train) -> None:
    job_id = train()
    dataset_id = dataset_of(client, job_id)
    for path in ("models/scanner/versions/1", "models/scanner", f"jobs/{job_id}", f"datasets/{dataset_id}"):
        problem(client.delete(f"/v1/{path}", headers={"Sec-Fetch-Site": "cross-site"}), 403, "cross-origin")
        assert client.get(f"/v1/{path}").status_code == 200

"""Two tenants and each other's ids: nothing is seen and nothing changed, by any call that the service has.

Every call is tried by what its path names. A call that names something this module has no example of fails the test, as
does a call that is not tried: whoever adds one adds what it shall be tried with.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, delete, event, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.api import examples
from app.api.auth import FOR_EVERYBODY, SCOPES_OF
from app.core import jobs, keys, repository
from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.owners import View, ViewedSessions
from app.core.settings import Settings
from app.core.tables import Batch, Dataset, Job, JobEvent, ModelAlias, Operation, Owned, Table
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import pair_files
from tests.app.possessions import IMAGE, WEBHOOK_KEY, fill

NEVER = {  # As `fill` names what there is.
    **dict.fromkeys(("name", "model"), "never"),
    **{
        f"{kind}_id": f"{prefix}_00"
        for kind, prefix in (("dataset", "ds"), ("job", "job"), ("operation", "op"), ("batch", "batch"))
    },
    "webhook_id": "wh_00",
    "delivery_id": "msg_00",
    "position": "0",
    "side": "clean",
    "version": "1",
    "alias": "production",
}
# Calls that name nothing, and make something of one's own; what each makes is looked at below.
MAKES_OWN = {("POST", path) for path in ("/v1/datasets", "/v1/jobs", "/v1/batches", "/v1/session", "/v1/webhooks")}
# What is refused even to its owner, since what `fill` makes names each other: that tells as well that it is found.
IN_USE = {("DELETE", path) for path in ("/v1/models/{name}", "/v1/jobs/{job_id}", "/v1/datasets/{dataset_id}")}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/v1/models/{name}/aliases/{alias}"): {"json": {"version": 1}},
    ("PATCH", "/v1/webhooks/{webhook_id}"): {"json": {"enabled": False}},
    ("POST", "/v1/models/{model}/super-resolve"): {
        "content": IMAGE,
        "headers": {"Content-Type": "image/png", "Prefer": "respond-async"},
    },
}


@dataclass(frozen=True)
class Tenants:
    """A locked service, its tenants' clients, and what alice has."""

    alice: httpx.Client
    bob: httpx.Client
    admin: httpx.Client
    nobody: httpx.Client
    values: dict[str, str]  # for the parameters of paths
    rows: sessionmaker[Session]

    def contents(self) -> dict[str, list[Any]]:
        """All rows of all tables but the keys, whose uses are noted."""
        with self.rows() as session:
            return {
                table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
                for table in Table.metadata.sorted_tables
                if table.name != "api_keys"
            }


@pytest.fixture
def tenants(tmp_path: Path, valkey_url: str, sqlite_template: Path) -> Iterator[Tenants]:
    (tmp_path / "drtl.sqlite3").write_bytes(sqlite_template.read_bytes())
    settings = Settings(data_dir=tmp_path, broker_url=valkey_url, wait_s=1.0, webhook_key=WEBHOOK_KEY)
    engine = open_database(settings.database_url)
    rows = sessions(engine)
    assert settings.blob_dir is not None
    values = fill(rows, FolderStorage(settings.blob_dir), "alice")
    with rows.begin() as session:
        tokens = {
            "alice": keys.create(session, "alice", ["read", "train", "infer"])[1],
            "bob": keys.create(session, "bob", ["read", "train", "infer"])[1],
            "admin": keys.create(session, "admin", ["admin"])[1],
        }
    with connected(create_app(settings)) as nobody:
        clients = {
            who: httpx.Client(base_url=nobody.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
            for who, token in tokens.items()
        }
        yield Tenants(**clients, nobody=nobody, values=values, rows=rows)
        for client in clients.values():
            client.close()
    engine.dispose()


def ask(client: httpx.Client, method: str, template: str, values: dict[str, str]) -> httpx.Response:
    """Make the call about these things. A path that names something unknown here raises KeyError."""
    return client.request(method, template.format(**values), **BODIES.get((method, template), {}))


def named(path: str) -> bool:
    return "{" in path


def every_call() -> set[tuple[str, str]]:
    """What the service answers, by its own description, but for what tells of nobody's things."""
    return {
        (method.upper(), path)
        for path, item in create_app().openapi()["paths"].items()
        for method in item
        if path not in FOR_EVERYBODY
    }


ABOUT_SOMETHING = sorted(call for call in every_call() if named(call[1]))
LISTS = sorted(call for call in every_call() if call[0] == "GET" and not named(call[1]))


def test_every_call_is_tried_by_a_test_below() -> None:
    assert {*ABOUT_SOMETHING, *LISTS, *MAKES_OWN} == every_call() == set(SCOPES_OF)


def test_every_table_is_owned_or_part_of_something_owned() -> None:
    tables: list[type[Table]] = [mapper.class_ for mapper in Table.registry.mappers]
    owned = {table.__tablename__ for table in tables if issubclass(table, Owned)}
    parts = {"pairs": "datasets", "job_events": "jobs", "webhook_attempts": "webhook_deliveries"}
    the_operators = {"api_keys", "training_shares"}
    assert owned | set(parts) | the_operators == set(Table.metadata.tables)
    for part, whole in parts.items():
        assert {key.column.table.name for key in Table.metadata.tables[part].foreign_keys} == {whole}


@pytest.mark.parametrize(("method", "path"), ABOUT_SOMETHING)
def test_anothers_thing_is_as_absent_as_one_that_never_was(tenants: Tenants, method: str, path: str) -> None:
    before = tenants.contents()
    foreign, absent = (ask(tenants.bob, method, path, values) for values in (tenants.values, NEVER))
    problem(foreign, 404, "not-found")
    told = [
        re.sub("|".join(sorted(set(values.values()) - {"0", "1", "clean", "production"})), "IT", answer.text)
        for answer, values in ((foreign, tenants.values), (absent, NEVER))
    ]
    assert told[0] == told[1], "a foreign thing can be told from one that does not exist"
    assert tenants.contents() == before

    own = ask(tenants.alice, method, path, tenants.values)
    if (method, path) in IN_USE:
        problem(own, 409, "conflict")
        return
    assert own.status_code in {200, 202, 204}, "the same call must find it for its owner, or it proves nothing"


DOWNLOADS = {
    *(f"/v1/models/{{name}}/versions/{{version}}/{file}" for file in ("weights", "onnx")),
    *(f"/v1/operations/{{operation_id}}/{file}" for file in ("result", "trust")),
}  # What tools ask for the head of before they fetch it.


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_no_verb_on_any_path_tells_of_anothers_thing_or_changes_it(tenants: Tenants, method: str) -> None:
    """Also those that no call has: what is refused is refused alike, whether the thing exists or not."""
    before = tenants.contents()
    for path in sorted({path for _, path in ABOUT_SOMETHING}):
        foreign, absent = (ask(tenants.bob, method, path, values) for values in (tenants.values, NEVER))
        assert foreign.status_code == absent.status_code, path
        known = (method, path) in SCOPES_OF or (method == "HEAD" and path in DOWNLOADS)
        assert foreign.status_code in ({404} if known else {405}), path
        assert foreign.headers.get("allow") == absent.headers.get("allow"), path
    assert tenants.contents() == before


@pytest.mark.parametrize(("method", "path"), ABOUT_SOMETHING)
def test_anothers_thing_takes_the_database_as_long_as_one_that_never_was(
    tenants: Tenants, method: str, path: str
) -> None:
    """By the statements that are sent: time itself is too noisy to compare, and too telling to be left out."""
    ask(tenants.bob, method, path, NEVER)  # The key is remembered from here on.
    sent: list[list[str]] = []
    for values in (tenants.values, NEVER):
        statements: list[str] = []

        def note(
            _connection: object, _cursor: object, statement: str, *_: object, seen: list[str] = statements
        ) -> None:
            # Not what notes, in a thread of its own and when there is time, that the key was used.
            if not current_thread().name.startswith("key-use"):
                seen.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            ask(tenants.bob, method, path, values)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        sent.append(statements)
    assert sent[0] == sent[1] != []


@pytest.mark.parametrize("list_of", ["datasets", "jobs", "operations", "batches"])
def test_anothers_id_as_a_cursor_is_a_place_in_time_and_no_more(tenants: Tenants, list_of: str) -> None:
    names = {"datasets": "dataset_id", "jobs": "job_id", "operations": "operation_id", "batches": "batch_id"}
    foreign = tenants.values[names[list_of]]
    kind, _, number = foreign.partition("_")
    neighbour = f"{kind}_{int(number, 16) - 1:0{len(number)}x}"  # Before it, so that Alice's own is not behind it.
    for client in (tenants.bob, tenants.alice):
        answers = [client.get(f"/v1/{list_of}", params={"after": after}).json() for after in (foreign, neighbour)]
        assert answers[0] == answers[1] == {"items": [], "next": None}


def test_events_after_anothers_event_are_ones_own(tenants: Tenants) -> None:
    own = tenants.bob.post("/v1/jobs", files=pair_files(), data={"name": "own", "allow_rejects": "true"}).json()["id"]
    with tenants.rows.begin() as session:
        session.add(JobEvent(job_id=tenants.values["job_id"], kind="progress", payload={}))
        session.add(JobEvent(job_id=own, kind="started", payload={}))
    for params, headers in (({"after": 0}, {}), ({}, {"Last-Event-ID": "1"})):
        page = tenants.bob.get(f"/v1/jobs/{own}/events", params=params, headers=headers).json()["items"]
        assert {item["job_id"] for item in page} == {own}


@pytest.mark.parametrize("reference", ["scanner", "scanner@1", "scanner@production", "scanner@2", "auto"])
def test_a_reference_to_anothers_model_is_one_to_nothing(tenants: Tenants, reference: str) -> None:
    before = tenants.contents()
    unknown = reference.replace("scanner", "never")
    sent = BODIES["POST", "/v1/models/{model}/super-resolve"]
    told = []
    for named_so in (reference, unknown):
        single = tenants.bob.post(f"/v1/models/{named_so}/super-resolve", **sent)
        many = tenants.bob.post("/v1/batches", files=[("images", ("a.png", IMAGE))], data={"model": named_so})
        for answer in (single, many):
            problem(answer, 404, "not-found")
            told.append(answer.text.replace(named_so, "IT").replace(named_so.partition("@")[0], "IT"))
    assert told[:2] == told[2:]
    assert tenants.contents() == before


def test_the_same_idempotency_key_makes_a_batch_for_each(tenants: Tenants) -> None:
    images, key = [("images", ("a.png", IMAGE))], {"Idempotency-Key": "tuesday"}
    first = tenants.alice.post("/v1/batches", files=images, data={"model": "scanner"}, headers=key)
    assert first.status_code == 202
    problem(tenants.bob.post("/v1/batches", files=images, data={"model": "scanner"}, headers=key), 404, "not-found")
    again = tenants.alice.post("/v1/batches", files=images, data={"model": "scanner"}, headers=key)
    assert again.json()["id"] == first.json()["id"]


def test_what_a_browser_keeps_of_ones_things_is_not_shown_to_anothers_key(tenants: Tenants) -> None:
    """A browser that changes its key must ask again for what it may keep without asking."""
    for method, path in ABOUT_SOMETHING:
        if method == "GET":
            kept = ask(tenants.alice, method, path, tenants.values).headers
            if "max-age" in kept.get("cache-control", ""):
                assert "private" in kept["cache-control"], path
                assert {"Authorization", "Cookie"} <= set(kept["vary"].split(", ")), path


@pytest.mark.parametrize(("method", "path"), LISTS)
def test_lists_are_without_what_others_have(tenants: Tenants, method: str, path: str) -> None:
    assert tenants.bob.request(method, path).json() == {"items": [], "next": None}
    assert len(tenants.alice.request(method, path).json()["items"]) == 1
    assert len(tenants.admin.request(method, path).json()["items"]) == 1


def test_events_as_a_stream_are_for_the_owner_only(tenants: Tenants) -> None:
    path = f"/v1/jobs/{tenants.values['job_id']}/events"
    headers = {"Accept": "text/event-stream"}
    problem(tenants.bob.get(path, headers=headers), 404, "not-found")
    with tenants.alice.stream("GET", path, headers=headers) as stream:
        assert any("event: started" in line for line in stream.iter_lines())


def test_both_may_have_a_model_of_the_same_name(tenants: Tenants) -> None:
    """Nobody learns from a refusal what another has."""
    made = tenants.bob.post("/v1/jobs", files=pair_files(), data={"name": "scanner", "allow_rejects": "true"})
    assert made.status_code == 202, made.text
    problem(
        tenants.bob.post("/v1/jobs", files=pair_files(), data={"name": "scanner", "allow_rejects": "true"}),
        409,
        "name-taken",
    )
    with tenants.rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
        assert lease is not None
        assert lease.job_id == made.json()["id"]
        jobs.succeed(
            session, lease, metrics={}, verdict="gain", explanation="", weights_blob="b" * 64, card={"whose": "bob's"}
        )
    assert tenants.bob.get("/v1/models/scanner/versions/1").json()["card"] == {"whose": "bob's"}
    assert tenants.alice.get("/v1/models/scanner/versions/1").json()["card"] == examples.VERSION["card"]
    with tenants.rows() as session:
        assert session.scalar(select(func.count()).select_from(ModelAlias)) == 2


def test_what_is_made_belongs_to_whoever_makes_it(tenants: Tenants) -> None:
    dataset = tenants.bob.post("/v1/datasets", files=pair_files()).json()["id"]
    assert tenants.bob.get(f"/v1/datasets/{dataset}").status_code == 200
    problem(tenants.alice.get(f"/v1/datasets/{dataset}"), 404, "not-found")
    job = tenants.alice.post("/v1/jobs", json={"dataset_id": dataset, "name": "mine"})
    problem(job, 404, "not-found")
    files = [("images", ("a.png", IMAGE))]
    problem(tenants.bob.post("/v1/batches", files=files, data={"model": "scanner"}), 404, "not-found")
    problem(tenants.bob.post("/v1/batches", files=files, data={"model": "auto"}), 404, "not-found")
    batch = tenants.alice.post("/v1/batches", files=files, data={"model": "scanner"}).json()["id"]
    assert tenants.alice.get(f"/v1/batches/{batch}").json()["items"][0]["name"] == "a.png"
    problem(tenants.bob.get(f"/v1/batches/{batch}"), 404, "not-found")
    with tenants.rows() as session:
        tables: list[type[Owned]] = [Dataset, Job, Batch, Operation]
        owners = {row.owner for table in tables for row in session.scalars(select(table))}
    assert owners == {"alice", "bob"}


def test_an_idempotency_key_is_its_owners_own(tenants: Tenants) -> None:
    """The same key of another tenant replays nothing of theirs, and says nothing about theirs."""
    data = {"name": "other", "allow_rejects": "true"}
    answer = tenants.bob.post("/v1/jobs", files=pair_files(), data=data, headers={"Idempotency-Key": "monday"})
    assert answer.status_code == 202
    assert "Idempotency-Replayed" not in answer.headers


def test_an_admin_sees_what_everybody_has_and_restores_with_nobodys_model(tenants: Tenants) -> None:
    for path in ("/v1/jobs/{job_id}", "/v1/models/{name}/versions/{version}/weights", "/v1/batches/{batch_id}/result"):
        assert ask(tenants.admin, "GET", path, tenants.values).status_code == 200, path
    problem(
        ask(tenants.admin, "POST", "/v1/models/{model}/super-resolve", tenants.values),
        404,
        "not-found",
    )
    assert ask(tenants.admin, "POST", "/v1/jobs/{job_id}/cancel", tenants.values).json()["state"] == "cancelling"


def test_a_session_with_a_view_reads_changes_and_removes_nothing_of_others(database: sessionmaker[Session]) -> None:
    """The same on SQLite and PostgreSQL, below HTTP."""
    with ViewedSessions(database, View("alice")).begin() as session:
        dataset = Dataset(scale=1, pairs=[])
        session.add(dataset)
        session.flush()
        job = Job(name="n", dataset_id=dataset.id, options={})
        session.add(job)
    with ViewedSessions(database, View("bob")).begin() as session:
        assert session.get(Dataset, dataset.id) is None
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert not repository.list_jobs(session, 10, None, None)
        jobs.request_cancel(session, job.id)
        assert session.execute(delete(Job)).rowcount == 0  # type: ignore[attr-defined]  # Known of a CursorResult only.
    with database() as session:
        assert session.get_one(Job, job.id).state == "queued"
        assert session.get_one(Job, job.id).owner == "alice"

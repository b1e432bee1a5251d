"""Keys over HTTP and at the terminal: who gets in, who does not, and what nobody gets to see."""

import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from starlette.datastructures import Headers
from typer.testing import CliRunner

from app.api import key_ring
from app.api.auth import COOKIE, FOR_EVERYBODY, SCOPES_OF
from app.api.key_ring import REMEMBERED_S, KeyRing, issue_ticket
from app.api.same_origin import is_foreign
from app.cli import app as cli
from app.core import keys
from app.core.database import open_database, sessions
from app.core.keys import SCOPES
from app.core.settings import Settings
from app.core.tables import ApiKey, utc_now
from app.embedded import CannotStart, require_keys_beyond_loopback
from app.failures import CommandFailed
from app.main import create_app
from migrations import migrate
from tests.app.conftest import connected, problem
from tests.servers import eventually

MakeKey = Callable[..., str]
UNKNOWN = "drtl_000000000000_" + 43 * "A"


@pytest.fixture
def locked(tmp_path: Path, valkey_url: str, sqlite_template: Path) -> Settings:
    """The settings of a service of the test's own."""
    database = tmp_path / "drtl.sqlite3"
    database.write_bytes(sqlite_template.read_bytes())
    return Settings(data_dir=tmp_path, broker_url=valkey_url, wait_s=5.0)


@pytest.fixture
def database(locked: Settings) -> Iterator[sessionmaker[Session]]:
    engine = open_database(locked.database_url)
    yield sessions(engine)
    engine.dispose()


@pytest.fixture
def make_key(database: sessionmaker[Session]) -> MakeKey:
    """Makes a key and returns its token."""

    def make(name: str = "lab", scopes: tuple[str, ...] = ("read", "train", "infer"), **given: Any) -> str:
        with database.begin() as session:
            return keys.create(session, name, scopes, **given)[1]

    return make


@pytest.fixture
def service(locked: Settings) -> Iterator[httpx.Client]:
    with connected(create_app(locked)) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refused(answer: httpx.Response) -> dict[str, Any]:
    document = problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="drtl"')
    return document


# Keys themselves


def test_a_key_opens_with_its_token_and_with_no_other(database: sessionmaker[Session], make_key: MakeKey) -> None:
    token = make_key()
    with database() as session:
        found = keys.find(session, token)
        assert found is not None
        assert found.scopes == ["read", "train", "infer"]
        wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
        for other in (wrong, UNKNOWN, token + "A", token[:-1], token.upper(), "", "drtl_", token[5:]):
            assert keys.find(session, other) is None


def test_the_database_does_not_hold_the_secret(locked: Settings, make_key: MakeKey) -> None:
    secret = make_key().split("_", 2)[2]
    with closing(sqlite3.connect(locked.data_dir / "drtl.sqlite3")) as connection:
        dump = "\n".join(connection.iterdump())
    assert keys.digest(secret) in dump
    assert secret not in dump


@given(st.text())
def test_no_text_but_a_token_reaches_the_database(text: str) -> None:
    """A session that fails the test where it is asked anything."""
    assert keys.find(None, text) is None  # type: ignore[arg-type]  # Whatever is asked of it fails.


def test_a_key_ends_when_it_is_revoked_and_when_it_expires(database: sessionmaker[Session], make_key: MakeKey) -> None:
    revoked, expired = make_key("a"), make_key("b", expires_at=utc_now() - timedelta(seconds=1))
    lasting = make_key("c", expires_at=utc_now() + timedelta(days=1))
    with database.begin() as session:
        keys.revoke(session, revoked.split("_")[1])
    with database() as session:
        assert keys.find(session, revoked) is None
        assert keys.find(session, expired) is None
        assert keys.find(session, lasting) is not None


@pytest.mark.parametrize(("name", "scopes"), [("", ["read"]), ("a/b", ["read"]), ("a", []), ("a", ["root"])])
def test_a_key_that_cannot_be_is_refused(database: sessionmaker[Session], name: str, scopes: list[str]) -> None:
    with database() as session, pytest.raises(ValueError, match=r"^(name|scopes):"):
        keys.create(session, name, scopes)


# The service


def test_a_service_without_keys_is_open_to_its_own_machine(service: httpx.Client) -> None:
    assert service.get("/v1/jobs").status_code == 200


def test_the_first_key_locks_the_service_and_revoking_it_does_not_open_it(
    service: httpx.Client, make_key: MakeKey, database: sessionmaker[Session]
) -> None:
    assert service.get("/v1/jobs").status_code == 200
    token = make_key()
    eventually(lambda: service.get("/v1/jobs").status_code == 401, timeout_s=5)
    refused(service.get("/v1/jobs"))
    assert service.get("/v1/jobs", headers=bearer(token)).status_code == 200
    with database.begin() as session:
        keys.revoke(session, token.split("_")[1])
    time.sleep(REMEMBERED_S + 0.1)
    refused(service.get("/v1/jobs", headers=bearer(token)))
    refused(service.get("/v1/jobs"))


def test_a_service_that_always_wants_keys_wants_them_before_there_is_one(locked: Settings) -> None:
    with connected(create_app(locked.model_copy(update={"require_keys": "always"}))) as client:
        refused(client.get("/v1/jobs"))


def test_a_service_that_never_wants_keys_still_hides_what_belongs_to_one(locked: Settings, make_key: MakeKey) -> None:
    make_key()
    with connected(create_app(locked.model_copy(update={"require_keys": "never"}))) as client:
        assert client.get("/v1/jobs").status_code == 200


def test_monitors_and_the_page_need_no_key(service: httpx.Client, make_key: MakeKey) -> None:
    make_key()
    for path in ("/healthz", "/readyz", "/problems/not-found", "/openapi.json", "/", "/web/app.js"):
        assert service.get(path).status_code == 200, path


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", f"Bearer {UNKNOWN}", "drtl", "Bearer \xff"])
def test_a_wrong_header_is_refused_even_by_an_open_service(service: httpx.Client, header: str) -> None:
    """Whoever sends a key believes to be somebody; answering as nobody would mislead."""
    refused(service.get("/v1/jobs", headers={b"Authorization": header.encode("latin-1")}))


def routes(app: FastAPI) -> set[tuple[str, str]]:
    return {
        (method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item if path != "/metrics"
    }


def test_every_call_says_whom_it_is_for() -> None:
    for_some = {(method, path) for method, path in routes(create_app()) if path not in FOR_EVERYBODY}
    assert for_some == set(SCOPES_OF)


VALUES = {
    "dataset_id": "ds_00",
    "job_id": "job_00",
    "operation_id": "op_00",
    "batch_id": "batch_00",
    "name": "scanner",
    "model": "scanner",
    "version": "1",
    "alias": "production",
    "position": "0",
    "side": "clean",
    "webhook_id": "wh_00",
    "delivery_id": "msg_00",
}
calls = pytest.mark.parametrize(("method", "path"), sorted(SCOPES_OF))


@pytest.fixture(scope="module")
def two_keys(
    tmp_path_factory: pytest.TempPathFactory, valkey_url: str, sqlite_template: Path
) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A locked service with a key for each scope."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "drtl.sqlite3").write_bytes(sqlite_template.read_bytes())
    settings = Settings(data_dir=folder, broker_url=valkey_url)
    engine = open_database(settings.database_url)
    with sessions(engine).begin() as session:
        tokens: dict[str, str] = {scope: keys.create(session, f"only-{scope}", [scope])[1] for scope in SCOPES}
    engine.dispose()
    with connected(create_app(settings)) as client:
        yield client, tokens


@calls
def test_no_call_is_answered_without_a_key(
    two_keys: tuple[httpx.Client, dict[str, str]], method: str, path: str
) -> None:
    client, _ = two_keys
    refused(client.request(method, path.format(**VALUES)))
    refused(client.request(method, path.format(**VALUES), headers=bearer(UNKNOWN)))
    documented = create_app().openapi()["paths"][path][method.lower()]["responses"]
    assert {"401", "403", "429"} <= set(documented)


@calls
@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_makes_the_calls_of_its_scope_and_no_others(
    two_keys: tuple[httpx.Client, dict[str, str]], method: str, path: str, scope: str
) -> None:
    client, tokens = two_keys
    answer = client.request(method, path.format(**VALUES), headers=bearer(tokens[scope]))
    if scope == "admin" or scope in SCOPES_OF[method, path]:
        assert answer.status_code not in {401, 403}, answer.text
    else:
        problem(answer, 403, "missing-scope")
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


# Browsers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Sec-Fetch-Site": "same-origin"}, 415),
        ({"Sec-Fetch-Site": "none"}, 415),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_a_page_of_another_origin_changes_nothing(service: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = service.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain", **headers})
    assert answer.status_code == status
    if status == 403:
        problem(answer, 403, "cross-origin")
    own = {"Origin": f"http://127.0.0.1:{service.base_url.port}", "Content-Type": "text/plain"}
    assert service.post("/v1/jobs", content=b"x", headers=own).status_code == 415


def test_a_page_without_an_origin_is_foreign_to_a_service_without_a_name() -> None:
    assert is_foreign(Headers({"Origin": "null", "Host": ""}))


def test_a_ticket_stands_in_for_the_key_where_nothing_is_changed(
    service: httpx.Client, make_key: MakeKey, database: sessionmaker[Session]
) -> None:
    token = make_key()
    begun = service.post("/v1/session", headers=bearer(token))
    assert begun.json() == {"expires_in_s": 3600}
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/v1" in cookie
    assert token.split("_", 2)[2] not in cookie
    assert service.get("/v1/jobs").status_code == 200  # The client keeps cookies, as a browser does.
    refused(service.post("/v1/jobs/job_00/cancel"))
    refused(service.post("/v1/session"))
    with database.begin() as session:
        keys.revoke(session, token.split("_")[1])
    time.sleep(REMEMBERED_S + 0.1)
    refused(service.get("/v1/jobs"))


def test_a_ticket_ends_and_cannot_be_made_up(
    service: httpx.Client, make_key: MakeKey, database: sessionmaker[Session]
) -> None:
    key_id = make_key().split("_")[1]
    with database() as session:
        key = session.get_one(ApiKey, key_id)
    good = issue_ticket(key)
    old = issue_ticket(key, lambda: time.time() - 2 * key_ring.TICKET_S)
    prolonged = re.sub(r"\.\d+\.", f".{int(time.time()) + 9_000_000}.", good)
    endless = f"{key_id}.{5000 * '9'}.x"
    for ticket in (old, prolonged, good[:-1], f"{key_id}.x.y", "", "..", f"{key_id}.9999999999.\u00e9", endless):
        refused(service.get("/v1/jobs", headers={b"Cookie": f"{COOKIE}={ticket}".encode("latin-1")}))
    assert service.get("/v1/jobs", headers={"Cookie": f"{COOKIE}={good}"}).status_code == 200


@pytest.mark.parametrize("ticket", ["ab." + 5000 * "9" + ".x", "ab\0.9999999999." + 64 * "0", "a" * 5000])
def test_what_is_no_ticket_does_not_reach_the_database(ticket: str) -> None:
    """Sessions that fail the test where they are asked for."""

    def looked_up() -> NoReturn:
        pytest.fail("it was looked up")

    ring = KeyRing(looked_up, looked_up)  # type: ignore[arg-type]  # opens none
    assert ring.key_of_ticket(ticket) is None
    ring.close()


# What it costs, and what it leaves behind


def test_requests_write_nothing_once_the_use_is_noted(locked: Settings, make_key: MakeKey) -> None:
    token = make_key()
    app = create_app(locked)
    statements: list[str] = []
    with connected(app) as client:
        engine = app.state.services.read_sessions.kw["bind"]

        @event.listens_for(engine.engine, "before_cursor_execute")
        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            statements.append(statement)

        def last_used() -> object:
            with sessions(engine)() as session:
                return session.get_one(ApiKey, token.split("_")[1]).last_used_at

        assert client.get("/v1/jobs", headers=bearer(token)).status_code == 200
        noted = eventually(last_used)
        statements.clear()
        for _ in range(3):
            assert client.get("/v1/jobs", headers=bearer(token)).status_code == 200
            time.sleep(0.6 * REMEMBERED_S)
        changing = [statement for statement in statements if not statement.startswith(("SELECT", "BEGIN", "PRAGMA"))]
        assert changing == []
        assert last_used() == noted


def test_no_secret_is_in_the_logs(
    service: httpx.Client, make_key: MakeKey, caplog: pytest.LogCaptureFixture, locked: Settings
) -> None:
    caplog.set_level(logging.DEBUG)
    token = make_key()
    service.post("/v1/session", headers=bearer(token))
    for headers in (
        bearer(token),
        bearer(token[:-1] + "-"),
        {"Authorization": f"Basic {token}"},
        {"Cookie": f"a={token}"},
    ):
        service.get("/v1/jobs", headers=headers)
    away = locked.model_copy(update={"database_url": "postgresql+psycopg://nobody:hidden@127.0.0.1:9/none"})
    with connected(create_app(away)) as lost:
        assert lost.get("/v1/jobs", headers=bearer(token)).status_code == 503
    said = "\n".join([*(record.getMessage() + str(record.exc_text) for record in caplog.records), caplog.text])
    assert "the database or the storage failed" in said
    for secret in (token, token.split("_", 2)[2][:20], "hidden"):
        assert secret not in said


# At the terminal


@pytest.fixture
def drtl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    from app.core.settings import settings

    monkeypatch.setenv("DRTL_DATA_DIR", str(tmp_path / "new"))
    monkeypatch.delenv("DRTL_DATABASE_URL", raising=False)
    settings.cache_clear()

    def run(*arguments: str) -> Any:
        answer = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)

    yield run
    settings.cache_clear()


def test_the_first_key_is_made_before_the_service_has_ever_run(drtl: Callable[..., Any], tmp_path: Path) -> None:
    made = drtl("keys", "create", "--name", "lab", "--scopes", "read,train", "--expires", "30", "--pairs", "12")
    assert keys.TOKEN.fullmatch(made["key"])
    (listed,) = drtl("keys", "list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert listed["scopes"] == ["read", "train"]
    assert listed["limits"] == {"pairs": 12}
    assert listed["usable"]
    engine = open_database(f"sqlite:///{tmp_path / 'new' / 'drtl.sqlite3'}")
    with sessions(engine)() as session:
        assert keys.find(session, made["key"]) is not None
    engine.dispose()
    ended = drtl("keys", "revoke", made["id"])
    assert not ended["usable"]
    assert [key["usable"] for key in drtl("keys", "list")] == [False]


def test_a_key_is_made_in_the_data_folder_that_is_named(drtl: Callable[..., Any], tmp_path: Path) -> None:
    there = ("--data-dir", str(tmp_path / "elsewhere"))
    beyond = Settings(data_dir=tmp_path / "elsewhere", host="0.0.0.0")  # noqa: S104 - it only says what will be asked
    migrate(beyond.database_url)
    with pytest.raises(CannotStart, match=f"drtl keys create --name NAME {' '.join(there)}"):
        require_keys_beyond_loopback(beyond)
    assert drtl("keys", "list", *there) == []
    made = drtl("keys", "create", "--name", "lab", *there)
    assert [key["id"] for key in drtl("keys", "list", *there)] == [made["id"]]
    with pytest.raises(CommandFailed, match="no database in"):
        drtl("keys", "list")
    assert not (tmp_path / "new").exists()
    require_keys_beyond_loopback(beyond)
    assert not drtl("keys", "revoke", made["id"], *there)["usable"]

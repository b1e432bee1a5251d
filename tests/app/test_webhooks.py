"""`/v1/webhooks` over HTTP, with a real receiver at the other end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.api.webhooks import LOOK_UPS
from app.core.database import open_database, sessions
from app.core.queue import HOUSEKEEPING_QUEUE
from app.core.settings import Settings
from app.core.tables import Dataset, Job, Webhook
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.receivers import LOOPBACK, Receiver, answering, receiver
from tests.servers import eventually
from worker.service import Service
from worker.webhooks import Deliverer


@pytest.fixture
def hook_settings(api_settings: Settings) -> Settings:
    allowed = {"webhook_key": "k" * 40, "webhook_networks": LOOPBACK, "webhook_http": True, "max_webhooks": 3}
    return api_settings.model_copy(update=allowed)


@pytest.fixture
def hooks(hook_settings: Settings) -> Iterator[httpx.Client]:
    with connected(create_app(hook_settings)) as client:
        yield client


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def worker(hook_settings: Settings) -> Iterator[Service]:
    service = Service.open(hook_settings)
    service.queue.redis.flushdb()
    yield service
    service.close()


def test_a_webhook_is_made_shown_changed_and_deleted(hooks: httpx.Client, there: Receiver) -> None:
    made = hooks.post("/v1/webhooks", json={"url": there.url, "events": ["job.failed"], "description": "Lab"})
    assert made.status_code == 201, made.text
    document = made.json()
    secret = document.pop("secret")
    assert secret.startswith("whsec_")
    assert made.headers["cache-control"] == "no-store"
    path = made.headers["location"]
    assert hooks.get(path).json() == document
    assert hooks.get("/v1/webhooks").json() == {"items": [document], "next": None}
    assert secret not in hooks.get(path).text

    changed = hooks.patch(path, json={"events": ["job.started", "job.succeeded"], "description": None}).json()
    assert changed == document | {"events": ["job.started", "job.succeeded"]}
    off = hooks.patch(path, json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "It was disabled by request.")
    problem(hooks.post(f"{path}/ping"), 409, "conflict")
    assert hooks.patch(path, json={"enabled": True}).json()["disabled_at"] is None

    assert hooks.delete(path).status_code == 204
    problem(hooks.get(path), 404, "not-found")
    problem(hooks.delete(path), 404, "not-found")


def test_all_events_are_told_unless_some_are_chosen(hooks: httpx.Client, there: Receiver) -> None:
    events = hooks.post("/v1/webhooks", json={"url": there.url}).json()["events"]
    assert events[0] == "job.started"
    assert len(events) == 6


def test_an_event_that_is_given_twice_is_told_once(hooks: httpx.Client, there: Receiver) -> None:
    asked = ["job.succeeded", "job.failed", "job.succeeded"]
    made = hooks.post("/v1/webhooks", json={"url": there.url, "events": asked})
    assert made.json()["events"] == ["job.succeeded", "job.failed"]
    changed = hooks.patch(made.headers["location"], json={"events": asked[1:] + asked[1:]})
    assert changed.json()["events"] == ["job.failed", "job.succeeded"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "http://127.0.0.1/", "events": []},
        {"url": "http://127.0.0.1/", "events": ["job.progress"]},
        {"url": "http://127.0.0.1/", "secret": "mine"},
        {"url": "http://127.0.0.1/", "description": "x" * 256},
        {"url": "http://127.0.0.1/", "description": "\0"},
    ],
)
def test_what_is_not_understood_is_refused(hooks: httpx.Client, body: dict[str, object]) -> None:
    problem(hooks.post("/v1/webhooks", json=body), 422, "unprocessable")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "https://169.254.169.254/latest", "http://2130706433/", "ftp://x/"]
)
def test_an_address_inside_is_refused_when_it_is_given_and_when_it_is_changed(
    hooks: httpx.Client, there: Receiver, url: str
) -> None:
    problem(hooks.post("/v1/webhooks", json={"url": url}), 422, "bad-webhook-url")
    path = hooks.post("/v1/webhooks", json={"url": there.url}).headers["location"]
    problem(hooks.patch(path, json={"url": url}), 422, "bad-webhook-url")
    assert hooks.get(path).json()["url"] == there.url


def test_names_that_nobody_resolves_take_few_threads(hooks: httpx.Client, there: Receiver) -> None:
    with ExitStack() as others:
        for _ in range(8):
            others.enter_context(LOOK_UPS)
        refused = hooks.post("/v1/webhooks", json={"url": there.url})
        problem(refused, 503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
    assert hooks.post("/v1/webhooks", json={"url": there.url}).status_code == 201


def test_a_webhook_that_is_deleted_while_its_new_name_is_looked_up_is_not_found(
    hooks: httpx.Client, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hooks.post("/v1/webhooks", json={"url": there.url}).headers["location"]

    def look_up(_host: str, _port: int) -> list[str]:
        assert hooks.delete(path).status_code == 204
        return ["127.0.0.1"]

    monkeypatch.setattr("app.core.receivers.look_up", look_up)
    problem(hooks.patch(path, json={"url": "http://slow.example/hook", "enabled": True}), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "below", "body"), [("PATCH", "", {"description": "Lab"}), ("POST", "/secret", {}), ("POST", "/ping", {})]
)
def test_a_webhook_whose_deletion_is_being_committed_is_not_found(
    hook_settings: Settings, postgres_database: str, there: Receiver, method: str, below: str, body: dict[str, str]
) -> None:
    """SQLite lets nobody look while another writes."""
    engine = open_database(postgres_database)
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def waits() -> bool:
        with engine.connect() as connection:
            return bool(connection.scalar(waiting))

    with (
        connected(create_app(hook_settings.model_copy(update={"database_url": postgres_database}))) as client,
        ThreadPoolExecutor(1) as pool,
        sessions(engine)() as session,
    ):
        path = client.post("/v1/webhooks", json={"url": there.url}).headers["location"]
        session.delete(session.get_one(Webhook, path.rpartition("/")[2]))
        session.flush()
        asked = pool.submit(client.request, method, path + below, json=body)
        eventually(waits, timeout_s=5, what="a request that waits for the deletion")
        session.commit()
        problem(asked.result(), 404, "not-found")
    engine.dispose()


def test_a_service_as_it_comes_sends_to_public_receivers_by_https_only(api_settings: Settings, there: Receiver) -> None:
    with connected(create_app(api_settings.model_copy(update={"webhook_key": "k" * 40}))) as client:
        for url in (there.url, there.url.replace("http:", "https:"), "https://localhost/"):
            problem(client.post("/v1/webhooks", json={"url": url}), 422, "bad-webhook-url")


def test_without_a_key_of_the_service_there_are_no_webhooks(hook_settings: Settings, there: Receiver) -> None:
    with connected(create_app(hook_settings.model_copy(update={"webhook_key": ""}))) as client:
        problem(client.post("/v1/webhooks", json={"url": there.url}), 409, "conflict")


def test_an_owner_has_as_many_as_the_settings_say(hooks: httpx.Client, there: Receiver) -> None:
    for _ in range(3):
        assert hooks.post("/v1/webhooks", json={"url": there.url}).status_code == 201
    problem(hooks.post("/v1/webhooks", json={"url": there.url}), 403, "over-quota")


def test_a_ping_arrives_signed_and_can_be_sent_again(hooks: httpx.Client, there: Receiver, worker: Service) -> None:
    made = hooks.post("/v1/webhooks", json={"url": there.url})
    secret, path = made.json()["secret"], made.headers["location"]
    there.respond = answering(500, b"not now")
    sent = hooks.post(f"{path}/ping")
    assert sent.status_code == 202
    assert sent.json()["state"] == "pending"
    assert sent.json()["next_attempt_at"]
    assert worker.queue.depth(HOUSEKEEPING_QUEUE) == 1
    Deliverer(worker).run()
    delivery = hooks.get(sent.headers["location"]).json()
    (attempt,) = delivery["attempts"]
    assert (delivery["state"], attempt["status"], attempt["excerpt"]) == ("pending", 500, "not now")
    problem(hooks.post(f"{sent.headers['location']}/redeliver"), 409, "conflict")

    there.respond = answering(204)
    hooks.patch(path, json={"enabled": False})
    hooks.patch(path, json={"enabled": True})
    assert hooks.get(sent.headers["location"]).json()["state"] == "failed", "disabling has given it up"
    again = hooks.post(f"{sent.headers['location']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    Deliverer(worker).run()
    first, second = there.messages
    assert first.type == second.type == "ping"
    assert first.id == second.id == delivery["id"]
    assert second.is_signed_with(secret)
    listed = hooks.get(f"{path}/deliveries", params={"state": "delivered"}).json()["items"]
    assert [attempt["status"] for attempt in listed[0]["attempts"]] == [500, 204]
    assert not hooks.get(f"{path}/deliveries", params={"state": "failed"}).json()["items"]


def test_while_a_secret_is_rotated_both_verify_and_afterwards_the_new_one_only(
    hooks: httpx.Client, there: Receiver, worker: Service
) -> None:
    made = hooks.post("/v1/webhooks", json={"url": there.url})
    before, path = made.json()["secret"], made.headers["location"]
    rotated = hooks.post(f"{path}/secret").json()
    assert rotated["previous_secret_until"]
    hooks.post(f"{path}/ping")
    Deliverer(worker).run()
    at_once = hooks.post(f"{path}/secret", json={"keep_previous_s": 0}).json()
    assert at_once["previous_secret_until"] is None
    hooks.post(f"{path}/ping")
    Deliverer(worker).run()
    overlapping, last = there.messages
    assert overlapping.is_signed_with(before)
    assert overlapping.is_signed_with(rotated["secret"])
    assert last.is_signed_with(at_once["secret"])
    assert len({before, rotated["secret"], at_once["secret"]}) == 3
    assert len(last.headers["webhook-signature"].split()) == 1


def test_cancelling_a_waiting_job_is_told_at_once(
    hooks: httpx.Client, there: Receiver, worker: Service, rows: sessionmaker[Session]
) -> None:
    hooks.post("/v1/webhooks", json={"url": there.url, "events": ["job.cancelled"]})
    with rows.begin() as session:
        session.add(Dataset(id="ds_1", scale=1))
        session.flush()
        job = Job(name="scanner", dataset_id="ds_1", options={"name": "scanner"})
        session.add(job)
    hooks.post(f"/v1/jobs/{job.id}/cancel")
    assert worker.queue.depth(HOUSEKEEPING_QUEUE) == 1
    Deliverer(worker).run()
    assert [(message.type, message.data["job_id"]) for message in there.messages] == [("job.cancelled", job.id)]


def test_deliveries_come_in_pages_newest_first_and_are_their_webhooks_own(hooks: httpx.Client, there: Receiver) -> None:
    one, other = (hooks.post("/v1/webhooks", json={"url": there.url}).headers["location"] for _ in range(2))
    sent = [hooks.post(f"{one}/ping").json()["id"] for _ in range(3)]
    page = hooks.get(f"{one}/deliveries", params={"limit": 2}).json()
    rest = hooks.get(f"{one}/deliveries", params={"limit": 2, "after": page["next"]}).json()
    assert {each["id"] for each in page["items"] + rest["items"]} == set(sent)
    assert rest["next"] is None
    problem(hooks.get(f"{other}/deliveries/{sent[0]}"), 404, "not-found")

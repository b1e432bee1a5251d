"""Webhooks' messages below HTTP, on SQLite and PostgreSQL: written with their events, claimed in order and in turn."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.core import deliveries, jobs, retention, webhooks
from app.core.database import open_database, sessions
from app.core.deliveries import PER_WEBHOOK, Answer, Claim
from app.core.errors import Conflict, OverQuota
from app.core.owners import View, ViewedSessions, look_as
from app.core.settings import Settings
from app.core.tables import Dataset, Job, JobEvent, Webhook, WebhookAttempt, WebhookDelivery, utc_now

KEY = "a service's key of enough characters"
SETTINGS = Settings(webhook_key=KEY)
GOOD, BAD = Answer(0.1, status=204), Answer(0.1, status=500, excerpt="oh no")


@pytest.fixture
def rows(database: sessionmaker[Session]) -> sessionmaker[Session]:
    with database.begin() as session:
        session.add(Dataset(id="ds_1", scale=1))
    return database


def hook(rows: sessionmaker[Session], owner: str = "", events: list[str] | None = None) -> str:
    with rows.begin() as session:
        look_as(session, owner)
        wanted = list(webhooks.EVENT_OF_KIND.values()) if events is None else events
        return webhooks.register(session, SETTINGS, "https://hooks.example/x", wanted, "").id


def queued(rows: sessionmaker[Session], name: str, owner: str = "") -> str:
    with rows.begin() as session:
        look_as(session, owner)
        job = Job(name=name, dataset_id="ds_1", options={})
        session.add(job)
    return job.id


def run(rows: sessionmaker[Session], name: str, owner: str = "") -> str:
    """A job that is started, has a graph, and fails."""
    job_id = queued(rows, name, owner)
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
        assert lease is not None
        assert lease.job_id == job_id
        jobs.save_graph(session, lease, {})
        jobs.report_progress(session, lease, "embedding", 0.1, None)
    with rows.begin() as session:
        jobs.fail(session, lease, "bad-input", "No.")
    return job_id


def claim(rows: sessionmaker[Session], at_most: int = 100, lease_s: float = 60.0) -> list[Claim]:
    with rows.begin() as session:
        return deliveries.claim(session, lease_s, at_most)


def note(rows: sessionmaker[Session], claimed: Claim, answer: Answer, settings: Settings = SETTINGS) -> str | None:
    with rows.begin() as session:
        return deliveries.note(session, claimed, answer, settings)


def written(rows: sessionmaker[Session]) -> list[WebhookDelivery]:
    with rows() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.sequence)))


def make_due(rows: sessionmaker[Session]) -> None:
    with rows.begin() as session:
        for delivery in session.scalars(select(WebhookDelivery)):
            delivery.due_at = 0.0


def test_each_event_that_matters_is_written_once_for_each_webhook_that_wants_it(rows: sessionmaker[Session]) -> None:
    everything, ends = hook(rows), hook(rows, events=["job.succeeded", "job.failed"])
    hook(rows, owner="another")
    job_id = run(rows, "scanner")
    told = [(each.webhook_id, each.event) for each in written(rows)]
    assert sorted(told) == sorted(
        [(everything, f"job.{kind}") for kind in ("started", "graph_ready", "failed")] + [(ends, "job.failed")]
    )
    failed = json.loads(written(rows)[-1].body)
    assert failed["type"] == "job.failed"
    assert failed["timestamp"].endswith("+00:00")
    assert failed["data"] == {
        "job_id": job_id,
        "name": "scanner",
        "state": "failed",
        "attempt": 1,
        "code": "bad-input",
        "message": "No.",
    }


def test_a_message_is_written_exactly_if_its_event_is(rows: sessionmaker[Session]) -> None:
    hook(rows)
    job_id = queued(rows, "scanner")
    with pytest.raises(RuntimeError), rows.begin() as session:  # noqa: PT012 - the session is what is tested
        jobs.request_cancel(session, job_id)
        session.flush()
        raise RuntimeError
    assert not written(rows)
    with rows.begin() as session:
        jobs.request_cancel(session, job_id)
        session.flush()
        assert deliveries.has_published(session)
        assert not deliveries.has_published(session)
    assert [each.event for each in written(rows)] == ["job.cancelled"]


def test_an_admins_cancellation_is_told_to_the_jobs_owner(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows, owner="alice")
    job_id = queued(rows, "scanner", "alice")
    with ViewedSessions(rows, View("admin", sees_all=True)).begin() as session:
        jobs.request_cancel(session, job_id)
    (delivery,) = written(rows)
    assert (delivery.owner, delivery.webhook_id) == ("alice", webhook_id)


def test_messages_of_a_job_go_out_in_order_and_one_that_fails_holds_back_the_later_ones(
    rows: sessionmaker[Session],
) -> None:
    hook(rows)
    run(rows, "one")
    run(rows, "two")
    first = claim(rows)
    assert [each.event for each in first] == ["job.started"] * 2
    assert not claim(rows), "the later messages wait for the earlier ones"
    assert note(rows, first[0], BAD) == "pending"
    assert note(rows, first[1], GOOD) == "delivered"
    (second,) = claim(rows)
    assert second.event == "job.graph_ready"
    assert note(rows, second, GOOD) == "delivered"
    make_due(rows)
    assert {each.event for each in claim(rows)} == {"job.started", "job.failed"}


def test_one_that_is_given_up_no_longer_holds_back_the_others(rows: sessionmaker[Session]) -> None:
    hook(rows)
    run(rows, "one")
    impatient = SETTINGS.model_copy(update={"webhook_patience_s": 0.0})
    (started,) = claim(rows)
    assert note(rows, started, BAD, impatient) == "failed"
    (graph,) = claim(rows)
    assert graph.event == "job.graph_ready"


def test_a_lease_that_ran_out_is_another_workers_and_the_first_can_note_nothing(rows: sessionmaker[Session]) -> None:
    hook(rows)
    run(rows, "one")
    (dead,) = claim(rows, lease_s=-1.0)
    (alive,) = claim(rows)
    assert (alive.delivery_id, alive.attempt, dead.attempt) == (dead.delivery_id, 2, 1)
    assert note(rows, dead, BAD) is None
    assert note(rows, alive, GOOD) == "delivered"
    with rows() as session:
        assert [attempt.number for attempt in session.scalars(select(WebhookAttempt))] == [2]


def test_no_more_than_a_few_go_to_one_webhook_at_a_time_whoever_claims(rows: sessionmaker[Session]) -> None:
    hook(rows)
    for name in "abcde":
        run(rows, name)
    got: list[Claim] = []
    lock = threading.Lock()

    def work() -> None:
        claimed = claim(rows)
        with lock:
            got.extend(claimed)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == PER_WEBHOOK
    assert len({each.delivery_id for each in got}) == PER_WEBHOOK
    assert not claim(rows)
    assert note(rows, got[0], GOOD) == "delivered"
    assert len(claim(rows)) == 1


def test_an_owner_with_many_receivers_leaves_the_next_place_to_one_with_few(rows: sessionmaker[Session]) -> None:
    for _ in range(10):
        hook(rows, "many")
    run(rows, "a", "many")
    assert len(claim(rows, 6)) == 6
    hook(rows, "few")
    run(rows, "b", "few")
    (next_one,) = claim(rows, 1)
    assert next_one.webhook.owner == "few"


def test_a_failed_attempt_is_kept_with_what_came_of_it(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    run(rows, "one")
    (claimed,) = claim(rows)
    note(rows, claimed, BAD)
    with rows() as session:
        delivery = deliveries.get(session, webhook_id, claimed.delivery_id)
        (attempt,) = delivery.attempts
        assert (attempt.number, attempt.status, attempt.error, attempt.excerpt) == (1, 500, None, "oh no")
        assert session.get_one(Webhook, webhook_id).failing_since is not None
        assert deliveries.list_deliveries(session, webhook_id, 10, None, "pending")
    make_due(rows)
    (claimed,) = claim(rows)
    note(rows, claimed, GOOD)
    with rows() as session:
        assert session.get_one(Webhook, webhook_id).failing_since is None


def test_a_webhook_that_has_failed_for_long_is_disabled_with_its_messages_given_up(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    run(rows, "one")
    (claimed,) = claim(rows)
    with rows.begin() as session:
        session.get_one(Webhook, webhook_id).failing_since = utc_now() - timedelta(days=6)
    note(rows, claimed, BAD)
    with rows() as session:
        webhook = session.get_one(Webhook, webhook_id)
        assert webhook.disabled_at is not None
        assert "Nothing has been delivered since" in (webhook.disabled_reason or "")
    assert {each.state for each in written(rows)} == {"failed"}
    run(rows, "two")
    assert len(written(rows)) == 3, "a disabled webhook hears of nothing"
    with rows.begin() as session:
        webhook = webhooks.get(session, webhook_id)
        with pytest.raises(Conflict):
            deliveries.ping(session, webhook)
        webhooks.change(session, webhook, {"enabled": True})
    run(rows, "three")
    assert len(written(rows)) == 6


def test_a_message_that_is_being_written_while_its_webhook_is_disabled_is_not_sent(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    queued(rows, "one")

    def disable() -> None:
        with rows.begin() as session:
            webhooks.change(session, webhooks.get_to_change(session, webhook_id), {"enabled": False})

    with ThreadPoolExecutor(1) as pool:
        with rows.begin() as session:
            assert jobs.claim_next(session, "task", 60) is not None
            session.flush()
            disabling = pool.submit(disable)
            time.sleep(0.3)
        disabling.result(timeout=10)
    assert [each.state for each in written(rows)] == ["failed"]
    assert claim(rows) == []


def test_what_a_webhook_does_not_want_hides_nothing_that_is_ready(postgres_database: str) -> None:
    """On SQLite there is one writer anyway."""
    engine = open_database(postgres_database)
    rows = sessions(engine)
    with rows.begin() as session:
        session.add(Dataset(id="ds_1", scale=1))
    hook(rows, events=["job.failed"])
    run(rows, "one")
    queued(rows, "two")
    with rows.begin() as session:
        assert jobs.claim_next(session, "task", 60) is not None
        session.flush()
        assert len(claim(rows)) == 1
    engine.dispose()


def test_a_receiver_that_is_gone_is_believed_at_once(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    run(rows, "one")
    (claimed,) = claim(rows)
    assert note(rows, claimed, Answer(0.1, status=410)) == "failed"
    with rows() as session:
        assert "410" in (session.get_one(Webhook, webhook_id).disabled_reason or "")
    assert not claim(rows)


def test_what_is_sent_again_keeps_its_id_and_holds_up_nobody(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    run(rows, "one")
    (started,) = claim(rows)
    with rows.begin() as session, pytest.raises(Conflict):
        deliveries.redeliver(
            session, webhooks.get(session, webhook_id), deliveries.get(session, webhook_id, started.delivery_id)
        )
    note(rows, started, GOOD)
    with rows.begin() as session:
        deliveries.redeliver(
            session, webhooks.get(session, webhook_id), deliveries.get(session, webhook_id, started.delivery_id)
        )
    again = claim(rows)
    assert {(each.event, each.delivery_id == started.delivery_id) for each in again} == {
        ("job.started", True),
        ("job.graph_ready", False),
    }


def test_secrets_are_another_after_rotation_and_both_sign_for_a_while(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    with rows.begin() as session:
        webhook = webhooks.get(session, webhook_id)
        before = webhooks.secret(webhook, SETTINGS)
        assert webhooks.active_secrets(webhook, SETTINGS, utc_now()) == [before]
        webhooks.rotate(webhook, SETTINGS, keep_previous_s=3600)
        after = webhooks.secret(webhook, SETTINGS)
        assert webhooks.active_secrets(webhook, SETTINGS, utc_now()) == [after, before]
        webhook.previous_secret_until = utc_now()
        assert webhooks.active_secrets(webhook, SETTINGS, utc_now()) == [after]
        elsewhere = SETTINGS.model_copy(update={"webhook_key": KEY[::-1]})
        assert webhooks.active_secrets(webhook, elsewhere, utc_now()) == [], "a key that is not known signs nothing"
        webhooks.rotate(webhook, elsewhere, keep_previous_s=3600)
        assert len(webhooks.active_secrets(webhook, elsewhere, utc_now())) == 1


def test_no_column_of_any_table_holds_a_secret(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    with rows() as session:
        webhook = webhooks.get(session, webhook_id)
        kept = " ".join(str(value) for row in session.execute(select(Webhook.__table__)) for value in row)
        secret = webhooks.secret(webhook, SETTINGS)
    assert secret.removeprefix("whsec_")[:12] not in kept
    assert KEY not in kept


def test_an_owner_has_only_so_many_webhooks_and_none_without_a_key(rows: sessionmaker[Session]) -> None:
    few = SETTINGS.model_copy(update={"max_webhooks": 1})
    with rows.begin() as session:
        webhooks.register(session, few, "https://x.example/", [], "")
        with pytest.raises(OverQuota):
            webhooks.register(session, few, "https://x.example/", [], "")
        with pytest.raises(Conflict, match="DRTL_WEBHOOK_KEY"):
            webhooks.register(session, Settings(), "https://x.example/", [], "")


def test_only_deliveries_that_ended_long_ago_are_forgotten(rows: sessionmaker[Session]) -> None:
    hook(rows)
    run(rows, "one")
    (claimed,) = claim(rows)
    note(rows, claimed, GOOD)
    with rows.begin() as session:
        session.get_one(WebhookDelivery, claimed.delivery_id).finished_at = utc_now() - timedelta(days=8)
    with rows.begin() as session:
        retention.expire_deliveries(session, 7 * 86_400.0)
    assert [each.event for each in written(rows)] == ["job.graph_ready", "job.failed"]
    with rows() as session:
        assert not session.scalars(select(WebhookAttempt)).all()
        assert session.scalars(select(JobEvent)).first() is not None


@pytest.mark.parametrize("days", [-8, 8])
def test_a_workers_wrong_clock_neither_forgets_messages_nor_disables_webhooks(
    rows: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    webhook_id = hook(rows)
    run(rows, "one")
    (claimed,) = claim(rows)
    note(rows, claimed, BAD)
    for module in (deliveries, webhooks):
        monkeypatch.setattr(module, "utc_now", lambda: utc_now() + timedelta(days=days), raising=False)
    make_due(rows)
    (again,) = claim(rows)
    note(rows, again, BAD)
    with rows.begin() as session:
        webhook = session.get_one(Webhook, webhook_id)
        assert (webhook.disabled_at, webhook.failing_since is not None) == (None, True)
    make_due(rows)
    (last,) = claim(rows)
    note(rows, last, GOOD)
    with rows.begin() as session:
        retention.expire_deliveries(session, 7 * 86_400.0)
        assert session.get_one(WebhookDelivery, last.delivery_id).state == "delivered"


@given(st.floats(0.01, 60), st.none() | st.floats(0, 1e6))
def test_pauses_grow_until_the_day_is_over_and_no_day_has_very_many(first_s: float, asked_s: float | None) -> None:
    elapsed, pauses = 0.0, []
    while elapsed < 86_400:
        pauses.append(deliveries.pause_s(first_s, elapsed, asked_s))
        elapsed += pauses[-1]
    assert all(first_s <= pause <= 1.2 * 4 * 3600 for pause in pauses)
    assert all(later >= earlier / 1.2 for earlier, later in pairwise(pauses))
    assert len(pauses) < 40


def test_what_cannot_be_sent_yet_is_not_overdue(rows: sessionmaker[Session]) -> None:
    hook(rows)
    with rows() as session:
        assert deliveries.overdue_s(session) == 0.0
    run(rows, "one")
    with rows.begin() as session:
        assert deliveries.pending(session) == 3
        assert 0.0 <= deliveries.overdue_s(session) < 5.0
        for each in session.scalars(select(WebhookDelivery)):
            each.due_at -= 100.0
    with rows() as session:
        assert 100.0 <= deliveries.overdue_s(session) < 105.0
    (claimed,) = claim(rows)
    with rows() as session:
        assert deliveries.overdue_s(session) == 0.0, "the next wait for it, and it is on its way"
        assert not deliveries.are_ready(session)
    note(rows, claimed, BAD)
    with rows() as session:
        assert deliveries.overdue_s(session) == 0.0, "it has a pause"


def test_webhooks_of_others_are_neither_seen_nor_told_of_ones_jobs(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows, "alice")
    run(rows, "a", "bob")
    assert not written(rows)
    with ViewedSessions(rows, View("bob"))() as session:
        assert session.get(Webhook, webhook_id) is None


def test_a_webhook_that_is_being_deleted_breaks_no_job_that_ends_meanwhile(rows: sessionmaker[Session]) -> None:
    webhook_id = hook(rows)
    job_id = queued(rows, "scanner")
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
    assert lease is not None
    deleting = rows()
    deleting.delete(deleting.get_one(Webhook, webhook_id))
    deleting.flush()
    ended: list[str] = []

    def end() -> None:
        with rows.begin() as session:
            jobs.fail(session, lease, "bad-input", "No.")
        ended.append(job_id)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(0.5)
    assert not ended  # It waits for what becomes of the webhook.
    deleting.commit()
    deleting.close()
    thread.join(20)
    assert ended == [job_id]
    assert not written(rows)

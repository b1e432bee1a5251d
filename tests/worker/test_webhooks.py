"""The sender of webhooks against real receivers, rows and a real broker: order, retries, fairness, lost workers."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import select

from app.core import jobs, telemetry, webhooks
from app.core.deliveries import PER_WEBHOOK, Claim
from app.core.owners import look_as
from app.core.queue import HOUSEKEEPING_QUEUE
from app.core.settings import Settings
from app.core.tables import Dataset, Job, Webhook, WebhookDelivery
from tests.receivers import LOOPBACK, Message, Receiver, answering, receiver
from tests.servers import eventually, start
from worker import reconciler
from worker.service import Service
from worker.webhooks import Deliverer

IN_ORDER = ["job.started", "job.graph_ready", "job.failed"]


@pytest.fixture
def settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(
        update={
            "webhook_key": "k" * 40,
            "webhook_networks": LOOPBACK,
            "webhook_http": True,
            "webhook_timeout_s": 2.0,
            "webhook_retry_s": 0.05,
        }
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    service = Service.open(settings)
    service.queue.redis.flushdb()
    with service.sessions.begin() as session:
        session.add(Dataset(id="ds_1", scale=1))
    yield service
    service.close()


def hook(service: Service, there: Receiver, owner: str = "", events: list[str] | None = None) -> str:
    """Register the receiver; returns the webhook's secret."""
    with service.sessions.begin() as session:
        look_as(session, owner)
        wanted = events or list(webhooks.EVENT_OF_KIND.values())
        return webhooks.secret(webhooks.register(session, service.settings, there.url, wanted, ""), service.settings)


def run_job(service: Service, name: str, owner: str = "") -> str:
    """A job that is started, has a graph, and fails."""
    with service.sessions.begin() as session:
        look_as(session, owner)
        session.add(Job(name=name, dataset_id="ds_1", options={}))
    lease = service.write(lambda session: jobs.claim_next(session, "task", 60))
    assert lease is not None
    service.write(lambda session: jobs.save_graph(session, lease, {}))
    service.write(lambda session: jobs.fail(session, lease, "bad-input", "No."))
    return lease.job_id


def states(service: Service) -> list[str]:
    with service.read_sessions() as session:
        return list(session.scalars(select(WebhookDelivery.state)))


def send_until_done(service: Service, timeout_s: float = 20.0) -> None:
    """As rounds of the reconciler would have it done."""
    deliverer = Deliverer(service)

    def done() -> bool:
        deliverer.run()
        return "pending" not in states(service)

    eventually(done, timeout_s, what="the end of all deliveries")


def test_a_jobs_events_arrive_in_order_and_signed(service: Service) -> None:
    with receiver() as there:
        secret = hook(service, there)
        job_id = run_job(service, "scanner")
        Deliverer(service).run()
        assert there.types() == IN_ORDER
        assert all(message.is_signed_with(secret) for message in there.messages)
        assert {message.data["job_id"] for message in there.messages} == {job_id}
        assert {message.headers["user-agent"] for message in there.messages} == {"DRTL-Webhooks/1"}
    assert states(service) == ["delivered"] * 3


def test_a_receiver_that_is_down_at_first_gets_everything_in_order_afterwards(service: Service) -> None:
    with receiver() as there:
        hook(service, there)
        there.script = [answering(500), answering(503)]
        run_job(service, "scanner")
        send_until_done(service)
        assert there.types() == ["job.started"] * 3 + IN_ORDER[1:]
        assert len({message.id for message in there.messages[:3]}) == 1, "the same message has the same id"


def test_what_is_written_wakes_a_sender_once_it_is_committed(service: Service) -> None:
    with receiver() as there:
        hook(service, there)
        run_job(service, "scanner")
    assert service.queue.depth(HOUSEKEEPING_QUEUE) == 3


def test_the_reconciler_wakes_a_sender_for_what_is_due_only(service: Service) -> None:
    reconciler.reconcile(service)
    assert service.queue.depth(HOUSEKEEPING_QUEUE) == 0
    with receiver() as there:
        hook(service, there)
        there.respond = answering(500, Retry_After="1000")
        run_job(service, "scanner")
        service.queue.redis.flushdb()
        reconciler.reconcile(service)
        assert service.queue.depth(HOUSEKEEPING_QUEUE) == 1
        Deliverer(service).run()
        service.queue.redis.flushdb()
        reconciler.reconcile(service)
        assert service.queue.depth(HOUSEKEEPING_QUEUE) == 0
        assert len(there.messages) == 1


class Slow:
    """Answers after a while, and knows how many waited for it at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, message: Message, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(self.seconds)
        with self._lock:
            self.inside -= 1
        answering(204)(message, handler)


def test_a_slow_receiver_is_asked_little_at_a_time_and_holds_nobody_up(service: Service) -> None:
    slow = Slow(0.3)
    with receiver() as sluggish, receiver() as quick:
        sluggish.respond = slow
        hook(service, sluggish, "a", ["job.failed"])
        hook(service, quick, "b", ["job.failed"])
        for number in range(6):
            run_job(service, f"slow-{number}", "a")
        for number in range(6):
            run_job(service, f"quick-{number}", "b")
        began = time.monotonic()
        Deliverer(service).run()
        assert len(sluggish.messages) == len(quick.messages) == 6
        assert slow.most == PER_WEBHOOK
        assert max(message.at for message in quick.messages) < min(m.at for m in sluggish.messages[4:])
        assert time.monotonic() - began < 5.0


class Hidden(Deliverer):
    """Sees nothing at its second look, during which the last lands: a lock hides what is due, as PostgreSQL's do."""

    looks = 0

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.looking = threading.Event()

    def _claim(self, at_most: int) -> list[Claim]:
        self.looks += 1
        if self.looks != 2:
            return super()._claim(at_most)
        self.looking.set()
        assert eventually(lambda: states(self.service).count("delivered") == PER_WEBHOOK)
        time.sleep(0.2)  # A message's task ends a moment after its row says so.
        return []


def test_a_sender_looks_once_more_where_the_last_landed_while_it_looked(service: Service) -> None:
    sender = Hidden(service)

    def last(message: Message, handler: BaseHTTPRequestHandler) -> None:
        assert sender.looking.wait(30.0)
        answering(204)(message, handler)

    with receiver() as there:
        there.script = [answering(204)] * (PER_WEBHOOK - 1) + [last]
        hook(service, there, events=["job.failed"])
        for number in range(PER_WEBHOOK + 1):
            run_job(service, f"job-{number}")
        sender.run()
        assert len(there.messages) == PER_WEBHOOK + 1
    assert states(service) == ["delivered"] * (PER_WEBHOOK + 1)


def test_senders_of_several_processes_send_nothing_twice(service: Service, settings: Settings) -> None:
    others = [Service.open(settings) for _ in range(2)]
    with receiver() as there:
        hook(service, there)
        for number in range(8):
            run_job(service, f"job-{number}")
        threads = [threading.Thread(target=send_until_done, args=(each,)) for each in (service, *others)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(there.messages) == 24
        by_job: dict[str, list[str]] = {}
        for message in there.messages:
            by_job.setdefault(message.data["job_id"], []).append(message.type)
        assert list(by_job.values()) == [IN_ORDER] * 8
    for other in others:
        other.close()


def test_two_messages_to_one_process_start_one_sender(service: Service) -> None:
    slow = Slow(0.2)
    with receiver() as there:
        there.respond = slow
        hook(service, there)
        deliverer = Deliverer(service)
        run_job(service, "one")
        first = threading.Thread(target=deliverer.run)
        first.start()
        there.wait_for(1)
        run_job(service, "two")
        deliverer.run()
        assert first.is_alive(), "the second has left the work to the first"
        first.join()
        assert sorted(there.types()) == sorted(IN_ORDER * 2)


SENDER = """
    import sys
    from app.core.settings import Settings
    from worker.service import Service
    from worker.webhooks import Deliverer

    Deliverer(Service.open(Settings())).run()
"""


def test_what_a_killed_worker_was_sending_is_sent_again(service: Service, settings: Settings) -> None:
    with receiver() as there:
        hook(service, there, events=["job.failed"])
        there.script = [Slow(30.0)]
        run_job(service, "scanner")
        environment = os.environ | {
            "DRTL_DATABASE_URL": settings.database_url,
            "DRTL_BROKER_URL": settings.broker_url,
            "DRTL_DATA_DIR": str(settings.data_dir),
            "DRTL_WEBHOOK_KEY": settings.webhook_key,
            "DRTL_WEBHOOK_NETWORKS": LOOPBACK,
            "DRTL_WEBHOOK_HTTP": "true",
            "DRTL_WEBHOOK_TIMEOUT_S": "60",
        }
        root = str(Path(__file__).parents[2])
        child = start(
            [sys.executable, "-c", textwrap.dedent(SENDER)],
            env=environment | {"PYTHONPATH": root},
            stdin=subprocess.DEVNULL,
        )
        there.wait_for(1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        Deliverer(service).run()
        assert len(there.messages) == 1, "it may still be on its way"
        with service.sessions.begin() as session:
            (delivery,) = session.scalars(select(WebhookDelivery))
            assert delivery.lease_until is not None
            delivery.lease_until = 0.0  # Rather than to wait for a minute.
        Deliverer(service).run()
        assert [message.id for message in there.messages] == [delivery.id] * 2
    assert states(service) == ["delivered"]


def test_a_message_of_a_webhook_that_was_deleted_meanwhile_is_no_error(service: Service) -> None:
    with receiver() as there:
        hook(service, there)
        there.respond = Slow(0.3)
        run_job(service, "scanner")
        sending = threading.Thread(target=Deliverer(service).run)
        sending.start()
        there.wait_for(1)
        with service.sessions.begin() as session:
            session.delete(session.scalars(select(Webhook)).one())
        sending.join()
        assert there.types() == ["job.started"]
    assert states(service) == []


def test_without_the_key_that_its_secret_was_made_of_nothing_is_sent(service: Service, settings: Settings) -> None:
    with receiver() as there:
        hook(service, there, events=["job.failed"])
        run_job(service, "scanner")
        other = Service.open(settings.model_copy(update={"webhook_key": "x" * 40}))
        Deliverer(other).run()
        assert not there.messages
        with service.read_sessions() as session:
            (delivery,) = session.scalars(select(WebhookDelivery))
            assert "Rotate" in (delivery.attempts[0].error or "")
        other.close()
        send_until_done(service)
        assert there.types() == ["job.failed"]


def test_attempts_are_counted_by_what_came_of_them(service: Service) -> None:
    with receiver() as there:
        hook(service, there, events=["job.failed"])
        there.script = [answering(500)]
        run_job(service, "scanner")
        send_until_done(service)
    service.numbers.flush()
    redis: Redis = service.queue.redis
    totals = telemetry.read_totals(redis)
    assert totals["drtl_webhook_attempts|delivered"] == totals["drtl_webhook_attempts|failed"] == 1.0


def test_a_database_that_goes_away_costs_nothing_but_time(service: Service, settings: Settings) -> None:
    away = Service.open(settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:9/none"}))
    Deliverer(away).run()
    away.close()


def test_neither_addresses_nor_secrets_nor_answers_are_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with receiver() as there:
        secret = hook(service, there)
        there.respond = answering(500, b"what the receiver says")
        run_job(service, "scanner")
        Deliverer(service).run()
        assert len(there.messages) == 1
        signature = there.messages[0].headers["webhook-signature"]
    mine = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("worker", "app")))
    assert "attempt 1" in mine
    for hidden in ("/hook", "what the receiver says", secret, signature):
        assert hidden not in mine

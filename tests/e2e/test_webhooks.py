"""Webhooks of the running service: a training told from beginning to end, through a receiver and a worker that die."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from drtl_client import Client
from tests.receivers import LOOPBACK, Message, Receiver, answering, receiver
from tests.servers import RunningService, embedded_service, eventually

SETTINGS = {
    "DRTL_WEBHOOK_NETWORKS": LOOPBACK,
    "DRTL_WEBHOOK_HTTP": "true",
    "DRTL_WEBHOOK_RETRY_S": "0.2",
    "DRTL_WEBHOOK_TIMEOUT_S": "3",
}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with embedded_service(tmp_path_factory.mktemp("hooked") / "data", **SETTINGS) as service:
        yield service


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def drtl(service: RunningService, *arguments: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "webhooks", *arguments],
        env=os.environ | {"DRTL_URL": service.url},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout


def test_a_training_is_told_in_order_to_a_receiver_that_is_down_at_first(
    hooked: RunningService, there: Receiver
) -> None:
    made = json.loads(drtl(hooked, "create", there.url, "--json"))
    there.script = [answering(503), answering(500)]
    job_id = hooked.post_job("told", pairs=4, finetune_steps=5)
    assert hooked.wait_for_end(job_id)["state"] == "succeeded"

    def arrived() -> bool:
        return any(message.type == "job.succeeded" for message in there.messages)

    eventually(arrived, timeout_s=30, what="the end of the job")
    assert there.types() == ["job.started"] * 3 + ["job.graph_ready", "job.succeeded"]
    assert len({message.id for message in there.messages}) == 3
    assert all(message.is_signed_with(made["secret"]) for message in there.messages)
    assert {message.data["job_id"] for message in there.messages} == {job_id}
    ended = there.messages[-1].data
    assert (ended["state"], ended["model"], ended["version"]) == ("succeeded", "told", 1)
    drtl(hooked, "delete", made["id"])
    assert json.loads(drtl(hooked, "list", "--json")) == []


def hang(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    time.sleep(20)
    handler.close_connection = True


def test_what_a_killed_worker_was_sending_arrives_once_it_is_back(hooked: RunningService, there: Receiver) -> None:
    with Client(hooked.url) as client:
        webhook = client.webhooks.create(there.url)
        assert webhook.secret is not None
        there.script = [hang]
        sent = client.webhooks.ping(webhook)
        there.wait_for(1)
        os.kill(hooked.pid("worker-inference"), signal.SIGKILL)
        again = there.wait_for(2, timeout_s=60)[1]
        assert again.id == sent.id
        assert again.is_signed_with(webhook.secret)

        def noted() -> bool:
            return client.webhooks.delivery(webhook, sent).state == "delivered"

        eventually(noted, what="the delivery noted")
        (attempt,) = client.webhooks.delivery(webhook, sent).attempts
        assert (attempt.number, attempt.status) == (2, 204), "of the first, nothing is known"
        client.webhooks.delete(webhook)


def test_pings_rotation_and_redelivery_from_the_command_line(hooked: RunningService, there: Receiver) -> None:
    secret = drtl(hooked, "create", there.url, "--events", "job.failed, job.cancelled").strip()
    (listed,) = json.loads(drtl(hooked, "list", "--json"))
    assert listed["events"] == ["job.failed", "job.cancelled"]
    assert listed["id"] in (shown := drtl(hooked, "show", listed["id"]))
    assert "good" in shown
    rotated = drtl(hooked, "rotate", listed["id"], "--keep-hours", "1").strip()
    assert rotated != secret
    drtl(hooked, "ping", listed["id"])
    (message,) = there.wait_for(1)
    assert message.is_signed_with(secret)
    assert message.is_signed_with(rotated)
    eventually(lambda: "delivered" in drtl(hooked, "deliveries", listed["id"]), what="the delivery noted")
    drtl(hooked, "redeliver", listed["id"], message.id)
    assert there.wait_for(2)[1].id == message.id
    assert "disabled" in drtl(hooked, "change", listed["id"], "--disable")
    drtl(hooked, "delete", listed["id"])


def test_the_secret_that_secrets_are_made_of_is_its_owners_and_in_no_log(
    hooked: RunningService, there: Receiver
) -> None:
    with Client(hooked.url) as client:
        webhook = client.webhooks.create(f"{there.url}?token=hidden-in-the-address")
        client.webhooks.ping(webhook)
        (message,) = there.wait_for(1)
    file = Path(hooked.data_dir / "webhook.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert webhook.secret is not None
    signature = message.headers["webhook-signature"].removeprefix("v1,")
    eventually(lambda: f"delivery {message.id}" in hooked.log("worker-inference"), what="the delivery in the log")
    for log in (hooked.data_dir / "logs").glob("*.log"):
        text = log.read_text(errors="replace")
        for hidden in (file.read_text(), webhook.secret, signature, "hidden-in-the-address"):
            assert hidden not in text, log.name

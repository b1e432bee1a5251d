"""Messages to the workers, by task name and carrying ids only. A lost message costs time, never work."""

import logging

from celery import Celery
from kombu.exceptions import OperationalError
from redis import ConnectionPool, Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

TRAIN = "drtl.train"
SUPER_RESOLVE = "drtl.super_resolve"
EXPORT_ONNX = "drtl.export_onnx"
DELIVER_WEBHOOKS = "drtl.deliver_webhooks"
RECONCILE = "drtl.reconcile"
SWEEP = "drtl.sweep"
TRAINING_QUEUE = "training"
INFERENCE_QUEUE = "inference"
HOUSEKEEPING_QUEUE = "housekeeping"
ROUND_MARK = "drtl:reconciled"
DONE_CHANNEL = "drtl:done"  # of the broker; its messages are identifiers of what has ended
# A worker holds one message ready while it trains. Sent again after the usual hour, its task would run twice under one
# id, and whoever kills one of the two by that id kills both.
VISIBILITY_TIMEOUT_S = 7 * 86_400
DELIVERED_S = 2 * VISIBILITY_TIMEOUT_S  # What is sent again then may wait behind a training of days once more.


def celery_app(broker_url: str) -> Celery:
    """A Celery application for sending and receiving, with short broker time-outs and no result backend."""
    app = Celery("drtl", broker=broker_url)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=TRAINING_QUEUE,
        task_routes={
            TRAIN: {"queue": TRAINING_QUEUE},
            SUPER_RESOLVE: {"queue": INFERENCE_QUEUE},
            EXPORT_ONNX: {"queue": HOUSEKEEPING_QUEUE},  # Served by inference workers, beside the images.
            DELIVER_WEBHOOKS: {"queue": HOUSEKEEPING_QUEUE},
            RECONCILE: {"queue": HOUSEKEEPING_QUEUE},
            SWEEP: {"queue": HOUSEKEEPING_QUEUE},
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # A broker whose disk is full refuses to write; its workers wait for room.
        broker_transport_options={
            "socket_connect_timeout": 2.0,
            "socket_timeout": 5.0,
            "health_check_interval": 5,
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
        },
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.05, "interval_step": 0.1},
        worker_prefetch_multiplier=1,
    )
    return app


class Queue:
    """The sending side: tells workers that there is work, and the api that some is done."""

    def __init__(self, broker_url: str) -> None:
        self.celery = celery_app(broker_url)
        pool = ConnectionPool.from_url(broker_url, socket_connect_timeout=2.0, socket_timeout=10.0)
        self.redis = Redis(connection_pool=pool)

    def _send(self, task: str, identifier: str) -> None:
        try:
            self.celery.send_task(task, args=[identifier])
            log.info("sent %s for %s", task, identifier)
        except (OperationalError, RedisError, OSError) as error:
            # Whatever it was about, it will be sent again: by the reconciler, or by the next request for an export.
            log.warning("message %s for %s not sent, it will be later: %s", task, identifier, error)

    def send_training(self, job_id: str) -> None:
        """Wake a training worker. Call after the commit."""
        self._send(TRAIN, job_id)

    def send_super_resolution(self, operation_id: str) -> None:
        """Wake an inference worker. Call after the commit."""
        self._send(SUPER_RESOLVE, operation_id)

    def send_onnx_export(self, reference: str) -> None:
        """Have the ONNX file of `name@version` or `name@version/owner` made.

        Sending again while it is being made does no harm.
        """
        self._send(EXPORT_ONNX, reference)

    def is_first_delivery(self, message_id: str) -> bool:
        """Whether a message has come for the first time; a broker that does not answer is believed that it has.

        Work is claimed in the database, so a second delivery takes nobody's. But what it took would bear the same
        message's id, and whatever is done to one of the two processes by that id would be done to both.
        """
        try:
            return bool(self.redis.set(f"drtl:delivered:{message_id}", 1, nx=True, ex=DELIVERED_S))
        except RedisError as error:
            log.warning("nobody knows whether message %s came before: %s", message_id, error)
            return True

    def send_webhooks(self) -> None:
        """Wake whoever sends webhooks' messages. Call after the commit."""
        self._send(DELIVER_WEBHOOKS, "whoever waits")

    def depth(self, queue: str) -> int:
        """How many messages wait in a queue. Raises RedisError."""
        return int(self.redis.llen(queue))

    def note_round(self, fades_after_s: float) -> None:
        """Leave a mark of the reconciler's round that fades unless rounds go on. Raises RedisError."""
        self.redis.set(ROUND_MARK, 1, px=round(1000 * fades_after_s))

    def did_a_round_lately(self) -> bool:
        """Whether the mark of a round is still there. Raises RedisError."""
        return bool(self.redis.exists(ROUND_MARK))

    def notify_done(self, identifier: str) -> None:
        """Tell every api process that an operation, or another thing that requests wait for, has ended."""
        try:
            self.redis.publish(DONE_CHANNEL, identifier)
        except RedisError as error:
            log.warning("nobody told of %s, waiters will look for themselves: %s", identifier, error)

    def kill_task(self, task_id: str) -> None:
        """Kill the process that runs a task (prefork workers only)."""
        try:
            self.celery.control.revoke(task_id, terminate=True, signal="SIGKILL")
        except (OperationalError, RedisError, OSError) as error:
            log.warning("task %s not killed yet: %s", task_id, error)

    def close(self) -> None:
        """Let go of all connections."""
        self.celery.close()
        self.redis.connection_pool.disconnect()

    def check(self) -> None:
        """Raise RedisError unless the broker answers."""
        self.redis.ping()

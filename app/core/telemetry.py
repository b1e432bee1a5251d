"""The workers' numbers on their way to `/metrics`: added up in one hash of the broker, whoever and wherever they are.

Why not a port for each worker: docs/adr/0018-metrics-and-logs.md.
"""

import json
import logging
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

TOTALS: Final = "drtl:totals"  # field "name|label" → number, only ever added to
READINGS: Final = "drtl:readings"  # field "name|label|process" → JSON [number, the broker's time in seconds]
EVERY_S: Final = 1.0
FRESH_S: Final = 60.0  # A reading that is older was left by a process that has ended.


@dataclass(frozen=True)
class Total:
    """A counter. `values` are all the values that its label may have, so that none is missing and none is made up."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Distribution:
    """A histogram; `bounds` are its buckets' upper ends."""

    name: str
    help: str
    bounds: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """A gauge: the sum over all processes."""

    name: str
    help: str
    label: str = ""


KINDS: Final = ("job", "operation")
LEASES_LOST: Final = Total("drtl_leases_lost", "Work that was dropped: its lease was lost.", "kind", KINDS)
LEASES_EXPIRED: Final = Total(
    "drtl_leases_expired", "Jobs taken back from silent workers; images given up.", "kind", KINDS
)
TRAINING_STEPS: Final = Total("drtl_training_steps", "Steps of trainings.")
WARM_MODELS: Final = Total(
    "drtl_warm_models", "What became of models that were asked for.", "event", ("hit", "miss", "eviction")
)
WEBHOOK_ATTEMPTS: Final = Total(
    "drtl_webhook_attempts", "Requests to webhooks' receivers.", "outcome", ("delivered", "failed", "given_up")
)
TILE_BATCH_SIZE: Final = Distribution("drtl_tile_batch_size", "Tiles that went together.", (1, 2, 4, 8, 16, 32))
BLOB_BYTES: Final = Reading("drtl_blob_bytes", "Bytes of all blobs, as the last sweep found them.")
BLOBS: Final = Reading("drtl_blobs", "How many blobs there are, as the last sweep found them.")
GPU_MEMORY: Final = Reading("drtl_gpu_memory_bytes", "Memory of accelerators held by workers' tensors.", "worker")

OF_WORKERS: Final = (LEASES_LOST, LEASES_EXPIRED, TRAINING_STEPS, WARM_MODELS, WEBHOOK_ATTEMPTS)
DISTRIBUTIONS: Final = (TILE_BATCH_SIZE,)
READ: Final = (BLOB_BYTES, BLOBS, GPU_MEMORY)


class Numbers:
    """One process's side: counts in memory, and once a second, from a thread of its own, adds that to the totals.

    A broker that is away loses nothing: what could not be sent is sent later. Not to be carried across a fork.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._counted: defaultdict[str, float] = defaultdict(float)
        self._set: dict[str, float] = {}
        self._watched: dict[str, Callable[[], float]] = {}
        self._lock = threading.Lock()
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, total: Total, label: str = "", amount: float = 1.0) -> None:
        """Count; takes a microsecond. `label` must be one of the total's values."""
        assert label in total.values
        self._note(f"{total.name}|{label}", amount)

    def observe(self, distribution: Distribution, value: float) -> None:
        """Count a value in its bucket, and add it to the sum."""
        bound = next((str(bound) for bound in distribution.bounds if value <= bound), "+Inf")
        self._note(f"{distribution.name}|{bound}", 1.0)
        self._note(f"{distribution.name}|sum", value)

    def put(self, reading: Reading, value: float, process: str = "one") -> None:
        """State what something is now; whoever states the same for the same `process` replaces it."""
        with self._lock:
            self._set[f"{reading.name}||{process}"] = value
        self._start()

    def watch(self, reading: Reading, label: str, read: Callable[[], float]) -> None:
        """State, once a second from now on, what `read` returns."""
        with self._lock:
            self._watched[f"{reading.name}|{label}|{socket.gethostname()}:{os.getpid()}"] = read
        self._start()

    def _note(self, field: str, amount: float) -> None:
        with self._lock:
            self._counted[field] += amount
        self._start()

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="numbers", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while not self._leave.wait(EVERY_S):
            self.flush()

    def flush(self) -> None:
        """Send what has been counted since the last time."""
        with self._lock:
            counted, self._counted = self._counted, defaultdict(float)
            readings, self._set = self._set, {}
            watched = dict(self._watched)
        readings |= {field: read() for field, read in watched.items()}
        if not counted and not readings:
            return
        try:
            now = _brokers_time(self._redis.time()) if readings else 0.0
            with self._redis.pipeline() as pipe:  # One transaction: all of it arrives, or nothing.
                for field, amount in counted.items():
                    pipe.hincrbyfloat(TOTALS, field, amount)
                for field, value in readings.items():
                    pipe.hset(READINGS, field, json.dumps([value, now]))
                pipe.execute()
        except RedisError as error:
            log.debug("numbers not sent, they will be later: %s", error)
            with self._lock:
                for field, amount in counted.items():
                    self._counted[field] += amount
                self._set = readings | self._set

    def close(self) -> None:
        """Send the rest, and stop."""
        self._leave.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self.flush()


def read_totals(redis: "Redis") -> dict[str, float]:
    """All totals by field. Raises RedisError."""
    found = cast("dict[bytes, bytes]", redis.hgetall(TOTALS))
    return {field.decode(): float(number) for field, number in found.items()}


def read_readings(redis: "Redis") -> dict[tuple[str, str], float]:
    """All readings by name and label, added up over processes. Raises RedisError.

    Those of processes that have ended are forgotten; the sweep's, which come once a while, stay.
    """
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(READINGS)
        pipe.time()
        found, told = pipe.execute()
    now, ended = _brokers_time(told), []
    for field, document in cast("dict[bytes, bytes]", found).items():
        name, label, process = field.decode().split("|")
        value, since = json.loads(document)
        if process != "one" and now - since > FRESH_S:
            ended.append(field)
            continue
        sums[name, label] += value
    if ended:
        redis.hdel(READINGS, *ended)
    return dict(sums)


def _brokers_time(told: Any) -> float:
    """Seconds since the epoch by the one clock that all who state and read numbers share (docs/adr/0023)."""
    seconds, microseconds = told
    return float(seconds + microseconds / 1e6)

"""`/metrics`: what goes on, in Prometheus' text format. No label has a value that a client can choose."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.deps import Services
from app.api.problems import problems
from app.core import telemetry
from app.core.census import CensusTaker
from app.core.telemetry import Distribution

router = APIRouter(tags=["health"])

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Metrics:
    """This process's registry: its requests, and whatever a scrape asks the database and the broker for."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "drtl_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "drtl_request_seconds",
            "Until the answer begins, uploads included.",
            ("route", "method"),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(ServiceCollector(services))

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route, method).observe(seconds)


class RequestMetrics:
    """ASGI middleware: counts and times every request by the template of its route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        noted = False

        async def send_and_note(message: Message) -> None:
            nonlocal noted
            if message["type"] == "http.response.start" and not noted:
                noted = True
                method = scope["method"] if scope["method"] in METHODS else "other"
                self.metrics.note(route_of(scope), method, message["status"], time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, send_and_note)


def route_of(scope: Scope) -> str:
    """The route's template, such as `/v1/jobs/{job_id}`; `other` where no route took the request."""
    if (path := getattr(scope.get("route"), "path", None)) is not None:
        return str(path)
    return "/web" if scope["path"].startswith("/web/") else "other"


class ServiceCollector(Collector):
    """What the rows and the workers say. A part that does not answer is reported as down, and the rest is there."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services
        self._census: CensusTaker | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing is known before somebody asks."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        services = self._services()
        taker = self._census = self._census or CensusTaker(services.read_sessions)
        up = GaugeMetricFamily("drtl_up", "Whether a part of the service answers.", labels=["part"])
        for part, ask in (("database", partial(rows, taker)), ("broker", partial(workers, services.queue.redis))):
            try:
                answered = list(ask())
            except (SQLAlchemyError, RedisError):
                up.add_metric([part], 0)
                continue
            up.add_metric([part], 1)
            yield from answered
        yield up


def rows(taker: CensusTaker) -> Iterator[Metric]:
    """What waits, runs and has ended. Raises SQLAlchemyError."""
    census = taker.take()
    jobs = GaugeMetricFamily("drtl_jobs", "Jobs by state; those that run by phase.", labels=["state", "phase"])
    for (state, phase), number in census.jobs.items():
        jobs.add_metric([state, phase], number)
    yield jobs
    operations = GaugeMetricFamily("drtl_operations", "Images on their way, by state.", labels=["state"])
    for state, number in census.operations.items():
        operations.add_metric([state], number)
    yield operations
    depth = GaugeMetricFamily("drtl_queue_depth", "Work that waits.", labels=["kind"])
    oldest = GaugeMetricFamily("drtl_queue_oldest_seconds", "How long the oldest has waited.", labels=["kind"])
    for kind, waiting, seconds in (
        ("job", census.jobs["queued", ""], census.oldest_job_s),
        ("operation", census.operations["queued"], census.oldest_operation_s),
    ):
        depth.add_metric([kind], waiting)
        oldest.add_metric([kind], seconds)
    yield depth
    yield oldest
    yield GaugeMetricFamily(
        "drtl_queue_work_seconds", "Core seconds expected of the jobs that wait.", value=census.waiting_work_s
    )
    yield GaugeMetricFamily(
        "drtl_webhooks_pending", "Messages that have not arrived yet.", value=census.pending_webhooks
    )
    yield GaugeMetricFamily(
        "drtl_webhooks_overdue_seconds", "How long the first could have been sent.", value=census.overdue_webhook_s
    )


def workers(redis: Redis) -> Iterator[Metric]:
    """What the workers have counted. Raises RedisError."""
    totals = telemetry.read_totals(redis)
    for total in telemetry.OF_WORKERS:
        counter = CounterMetricFamily(total.name, total.help, labels=[total.label] if total.label else [])
        for value in total.values:
            counter.add_metric([value] if total.label else [], totals.get(f"{total.name}|{value}", 0.0))
        yield counter
    for distribution in telemetry.DISTRIBUTIONS:
        yield histogram(distribution, totals)
    readings = telemetry.read_readings(redis)
    for reading in telemetry.READ:
        gauge = GaugeMetricFamily(reading.name, reading.help, labels=[reading.label] if reading.label else [])
        for (name, label), number in readings.items():
            if name == reading.name:
                gauge.add_metric([label] if reading.label else [], number)
        yield gauge


def histogram(distribution: Distribution, totals: dict[str, float]) -> Metric:
    """Prometheus counts in each bucket what is below it, too."""
    buckets, below = [], 0.0
    for bound in (*map(str, distribution.bounds), "+Inf"):
        below += totals.get(f"{distribution.name}|{bound}", 0.0)
        buckets.append((bound, below))
    family = HistogramMetricFamily(distribution.name, distribution.help)
    family.add_metric([], buckets, totals.get(f"{distribution.name}|sum", 0.0))
    return family


EXAMPLE: Final = """\
# HELP drtl_queue_depth Work that waits.
# TYPE drtl_queue_depth gauge
drtl_queue_depth{kind="job"} 2.0
drtl_queue_depth{kind="operation"} 0.0
"""
TEXT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}}
}


@router.get("/metrics", response_class=Response, responses=TEXT | problems())
def metrics(request: Request) -> Response:
    """What goes on, in Prometheus' text format. `docs/operations.md` says what each number means."""
    kept = request.app.state.metrics
    assert isinstance(kept, Metrics)
    return Response(generate_latest(kept.registry), media_type=CONTENT_TYPE_LATEST)

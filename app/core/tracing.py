"""Traces by OpenTelemetry, from a request through its row to the worker's steps, where OTEL_* variables ask.

Where they do not, nothing of OpenTelemetry is imported, and a span is an empty block (docs/adr/0026-traces.md).
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

log = logging.getLogger(__name__)

CARRIED: Final = ("traceparent", "tracestate")  # headers of requests, kept in the row (W3C Trace Context)
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
FLUSH_S: Final = 3.0  # A collector that is away must not hold up a process that ends.


class Span(Protocol):
    """What is done with a span while it is open."""

    def update_name(self, name: str) -> None: ...

    def set_attribute(self, key: str, value: str | int) -> None: ...


class Silent:
    """A span that nobody asked for."""

    def update_name(self, name: str) -> None:
        pass

    def set_attribute(self, key: str, value: str | int) -> None:
        pass


@dataclass(frozen=True)
class Tracing:
    """This process's way to the collector."""

    provider: "TracerProvider"
    propagator: "TraceContextTextMapPropagator"


SILENT: Final = Silent()
_tracing: Tracing | None = None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces by OTLP."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER")
    return exporter == "otlp" or (exporter is None and any(environment.get(name) for name in ENDPOINTS))


def configure(service: str) -> None:
    """Begin to trace this process, if the environment asks for it. Call after the logs are set up, and after a fork."""
    global _tracing  # noqa: PLW0603 - a process has one, as it has one set of log handlers
    if _tracing is not None or not is_wanted(os.environ):
        return
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL is %s, and only http/protobuf is known here", protocol)
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError as missing:
        log.warning(
            "no traces: the environment asks for them (OTEL_…), but %s is not installed: "
            "pip install 'drtl-service[otel]'",
            missing.name,
        )
        return
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    # Sampler, limits, batches, address and headers are the SDK's affair, which reads its variables itself.
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracing = Tracing(provider, TraceContextTextMapPropagator())
    log.info("traces are sent by OpenTelemetry")


@contextmanager
def span(
    name: str, parent: Mapping[str, str] | None = None, kind: str = "INTERNAL", **facts: str | int
) -> Iterator[Span]:
    """Everything in the `with` block is this step of a trace: of the one that is under way, or of the parent's.

    Of an exception the type is kept, not the message, which may hold what is nobody's business.
    """
    if _tracing is None:
        yield SILENT
        return
    from opentelemetry.trace import SpanKind, StatusCode

    context = None if parent is None else _tracing.propagator.extract(parent)
    tracer = _tracing.provider.get_tracer("drtl")
    attributes = {f"drtl.{fact}": value for fact, value in facts.items()}
    with tracer.start_as_current_span(
        name,
        context,
        kind=SpanKind[kind],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_status(StatusCode.ERROR, type(error).__name__)
            raise


class Steps(ExitStack):
    """Spans one after the other: each ends where the next begins, the last with `close`."""

    def enter(self, name: str) -> None:
        self.close()
        self.enter_context(span(name))


def carrier() -> dict[str, str]:
    """The trace that is under way, as it is handed on."""
    carried: dict[str, str] = {}
    if _tracing is not None:
        _tracing.propagator.inject(carried)
    return carried


def carried_in(headers: Mapping[str, Any]) -> dict[str, str]:
    """The trace that a request belongs to, out of its headers."""
    return {name: str(headers[name]) for name in CARRIED if headers.get(name)}


def flush() -> None:
    """Send what has not been sent, for a few seconds at the most. For a process that ends now."""
    if _tracing is not None:
        sending = threading.Thread(target=_tracing.provider.force_flush, name="flush-traces", daemon=True)
        sending.start()
        sending.join(FLUSH_S)

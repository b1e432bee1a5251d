"""One trace over the processes of the running service, received as OpenTelemetry's collector would receive it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.images import image_pairs
from tests.servers import embedded_service, eventually

PHASES = ["validating", "embedding", "transferring", "fine_tuning", "evaluating", "registering"]


class Received(NamedTuple):
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str | int]


@contextmanager
def collector() -> Iterator[tuple[str, list[Received]]]:
    """An OTLP/HTTP endpoint; yields its address and the spans that have come."""
    spans: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in sent.resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                spans.extend(
                    Received(
                        named["service.name"],
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        {each.key: each.value.string_value or each.value.int_value for each in span.attributes},
                    )
                    for scope in resource.scope_spans
                    for span in scope.spans
                )
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
        server.shutdown()


def test_a_request_is_followed_into_the_training_and_into_the_restoring_of_an_image(tmp_path: Path) -> None:
    caller, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    traced = {"traceparent": f"00-{caller}-{parent}-01"}
    with collector() as (endpoint, spans):
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with embedded_service(tmp_path / "data", **settings) as service:
            service.http.headers.update(traced)
            job = service.wait_for_end(service.post_job("traced", pairs=4, finetune_steps=5))
            assert job["state"] == "succeeded", job
            image = image_pairs(1)[0][2]
            restored = service.http.post(
                "/v1/models/traced@1/super-resolve", content=image, headers={"Content-Type": "image/png"}
            )
            assert restored.status_code == 200, restored.text

            def named(name: str) -> list[Received]:
                return [span for span in spans if span.name == name]

            eventually(lambda: named("train") and named("restore"), what="the workers' spans")
            (create,) = eventually(lambda: named("POST /v1/jobs"), what="the span of the request")
            assert (create.service, create.trace_id, create.parent_id) == ("drtl-api", caller, parent)
            assert create.attributes["http.response.status_code"] == 202
            (train,) = named("train")
            assert (train.service, train.trace_id, train.parent_id) == ("drtl-worker", caller, create.span_id)
            assert train.attributes == {"drtl.job_id": job["id"], "drtl.attempt": 1}
            assert [span.name for span in spans if span.parent_id == train.span_id] == PHASES
            (ask,) = eventually(lambda: named("POST /v1/models/{model}/super-resolve"), what="the request's span")
            (restore,) = named("restore")
            assert (restore.service, restore.trace_id, restore.parent_id) == ("drtl-worker", caller, ask.span_id)
            assert not any("healthz" in span.name or "readyz" in span.name for span in spans)

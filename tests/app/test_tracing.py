"""Traces: what asks for them, what they cost where nothing does, and what they never tell."""

import os
import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.api import deps
from app.core import tracing
from app.core.settings import Settings
from app.core.tracing import Tracing, is_wanted
from app.main import create_app
from tests.app.conftest import connected

ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Everything that is traced in this process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracing", Tracing(provider, TraceContextTextMapPropagator()))
    return exporter


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DRTL_"))}
    return subprocess.run(
        [sys.executable, "-c", program], env=inherited | environment, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ASKED, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ASKED | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ASKED | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_SERVICE_NAME": "drtl"}, False),
    ],
)
def test_the_standard_variables_ask_for_traces(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) == wanted


def test_a_service_that_nobody_asked_for_traces_imports_no_exporter() -> None:
    """FastAPI and redis-py bring in the rest where it is installed, asked or not."""
    program = (
        "import sys\nfrom app.main import create_app\ncreate_app()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter')])"
    )
    assert run(program).stdout.strip() == "[]"


def test_a_span_that_nobody_asked_for_costs_microseconds() -> None:
    assert tracing._tracing is None
    began = time.process_time()
    for _ in range(1000):
        with tracing.span("nothing", job_id="job_1"):
            pass
    assert (time.process_time() - began) / 1000 < 5e-5
    assert tracing.carrier() == {}


CONFIGURE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith('opentelemetry') and 'absent' in sys.argv:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.argv.append(%r)
sys.meta_path.insert(0, Absent())
from app.core import logs, tracing
logs.configure('text')
tracing.configure('drtl-test')
print(tracing._tracing is not None)
tracing.flush()
"""


def test_where_it_is_not_installed_the_log_says_what_to_install_and_the_service_goes_on() -> None:
    ended = run(CONFIGURE % "absent", **ASKED)
    assert ended.stdout.strip() == "False"
    assert "pip install 'drtl-service[otel]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_protocol_that_is_not_known_is_told() -> None:
    ended = run(CONFIGURE % "there", **ASKED, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert ended.stdout.strip() == "False"
    assert "http/protobuf" in ended.stderr


def test_steps_follow_one_another_below_the_trace_that_a_message_carried(spans: InMemorySpanExporter) -> None:
    with tracing.span("train", PARENT, "CONSUMER", job_id="job_1", attempt=2):
        steps = tracing.Steps()
        steps.enter("validating")
        carried = tracing.carrier()
        steps.enter("embedding")
        steps.close()
    validating, embedding, train = spans.get_finished_spans()
    assert [span.name for span in (validating, embedding, train)] == ["validating", "embedding", "train"]
    assert format(train.context.trace_id, "032x") == PARENT["traceparent"].split("-")[1]
    assert train.parent is not None
    assert format(train.parent.span_id, "016x") == PARENT["traceparent"].split("-")[2]
    for step in (validating, embedding):
        assert step.parent is not None
        assert step.parent.span_id == train.context.span_id
    assert validating.end_time is not None
    assert embedding.start_time is not None
    assert validating.end_time <= embedding.start_time
    assert carried["traceparent"].split("-")[1:3] == [
        format(validating.context.trace_id, "032x"),
        format(validating.context.span_id, "016x"),
    ]
    assert dict(train.attributes or {}) == {"drtl.job_id": "job_1", "drtl.attempt": 2}


def test_of_an_exception_the_type_is_told_and_not_the_message(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("fails"):
        raise ValueError("a secret")
    (failed,) = spans.get_finished_spans()
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "ValueError")
    assert "secret" not in failed.to_json()


def test_the_span_of_a_request_that_nobody_foresaw_tells_its_status_and_the_errors_type(
    spans: InMemorySpanExporter, api_settings: Settings
) -> None:
    def fail() -> None:
        raise LookupError("a secret")

    app = create_app(api_settings)
    app.dependency_overrides[deps.services] = fail
    with connected(app) as client:
        assert client.get("/v1/jobs").status_code == 500
    (failed,) = spans.get_finished_spans()
    assert failed.name == "GET /v1/jobs"
    assert (failed.attributes or {})["http.response.status_code"] == 500
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "LookupError")
    assert "secret" not in failed.to_json()


def test_without_a_parent_a_trace_of_its_own_begins(spans: InMemorySpanExporter) -> None:
    with tracing.span("alone", tracing.carried_in({"traceparent": "rubbish"})):
        pass
    (alone,) = spans.get_finished_spans()
    assert alone.parent is None

"""Log lines: what they are about, in both formats, and what they never tell."""

import io
import json
import logging
import sys
from contextvars import copy_context
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.core import logs
from app.core.database import open_database
from app.core.logs import JsonFormatter, TextFormatter
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected


@pytest.fixture
def written(request: pytest.FixtureRequest) -> tuple[logging.Logger, io.StringIO]:
    """A logger in the format that the test names, and what it has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    logger = logging.getLogger("tested")
    logger.handlers, logger.propagate, logger.level = [handler], False, logging.INFO
    return logger, stream


as_json = pytest.mark.parametrize("written", [JsonFormatter], indirect=True)
as_text = pytest.mark.parametrize("written", [TextFormatter], indirect=True)
Written = tuple[logging.Logger, io.StringIO]


@as_json
def test_a_json_line_says_what_it_is_about_and_afterwards_no_more(written: Written) -> None:
    logger, stream = written
    with logs.about(request_id="r"), logs.about(job_id="job_1", attempt=2, operation_id=None):
        logger.info("step %d", 7)
        copy_context().run(logger.info, "in another thread")
    logger.info("afterwards")
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    about = {"request_id": "r", "job_id": "job_1", "attempt": 2}
    assert first["message"] == "step 7"
    assert first["level"] == "info"
    assert first["time"].endswith("+00:00")
    assert about.items() <= first.items()
    assert about.items() <= second.items()
    assert "operation_id" not in first
    assert not about.keys() & third.keys()


@as_json
def test_a_traceback_and_a_newline_stay_on_one_json_line(written: Written) -> None:
    logger, stream = written
    try:
        int("redis://:hidden@host/0")
    except ValueError:
        logger.exception("two\nlines")
    (line,) = stream.getvalue().splitlines()
    document = json.loads(line)
    assert document["message"] == "two\nlines"
    assert "ValueError" in document["traceback"]
    assert "hidden" not in line


@as_text
def test_a_text_line_ends_with_what_it_is_about(written: Written) -> None:
    logger, stream = written
    with logs.about(job_id="job_1"):
        logger.warning("slow")
    assert stream.getvalue().endswith("WARNING tested: slow [job_id=job_1]\n")


@pytest.mark.parametrize(
    "line",
    [
        "connecting to postgresql+psycopg://drtl:SECRET@host:5432/drtl",
        "redis://:SECRET@127.0.0.1:6379/0",
        "Authorization: Bearer SECRET",
        '{"authorization": "SECRET"}',
        "bearer SECRET",
        "X-API-Key: SECRET",
        "password=SECRET",
        "whsec_SECRETSECRETSECRET+/=",
        "DRTL_WEBHOOK_KEY=SECRET",
        "Settings(webhook_key='SECRET')",
        "webhook-signature: v1,SECRETSECRETSECRETSECRETSECRETSECRETSECRETSE=",
    ],
)
def test_secrets_are_masked(line: str) -> None:
    assert "SECRET" not in logs.without_secrets(line)


def test_settings_that_cannot_be_are_named_without_their_values() -> None:
    with pytest.raises(ValueError, match="webhook_key") as refused:
        Settings(webhook_key="too short to be safe")
    assert "too short" not in str(refused.value)
    assert "k" * 40 not in repr(Settings(webhook_key="k" * 40))


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"])))
def test_words_and_numbers_are_left_as_they_are(text: str) -> None:
    if not {"bearer", "basic"} & set(text.lower().split()):
        assert logs.without_secrets(text) == text


def test_an_answer_carries_the_clients_request_id_or_a_fresh_one(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "mine-7"}).headers["x-request-id"] == "mine-7"
    refused = client.get("/v1/jobs/job_00", headers={"X-Request-ID": 'forged" line'})
    assert refused.status_code == 404
    fresh = [refused.headers["x-request-id"], client.get("/healthz").headers["x-request-id"]]
    assert len(set(fresh)) == 2
    assert all(request_id.startswith("req_") for request_id in fresh)


def test_in_json_each_request_is_a_line_by_its_route_without_what_the_client_wrote(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("json")
    try:
        with connected(create_app(api_settings.model_copy(update={"log_format": "json"}))) as client:
            client.get("/v1/jobs/job_private?key=private", headers={"X-Request-ID": "r7"})
    finally:
        root.handlers, level = before
        root.setLevel(level)
        logging.captureWarnings(False)
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    (line,) = (document for document in documents if document.get("request_id") == "r7")
    assert line["message"] == "GET /v1/jobs/{job_id}: 422"  # It takes no option.
    assert (line["route"], line["status"], line["method"]) == ("/v1/jobs/{job_id}", 422, "GET")
    assert 0 < line["seconds"] < 10
    assert "private" not in json.dumps(line)
    assert any(document["logger"].startswith("uvicorn") for document in documents)


def test_a_statement_that_fails_names_no_values(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'some.sqlite3'}")
    with engine.connect() as connection, pytest.raises(OperationalError) as failed:
        connection.execute(text("INSERT INTO missing VALUES (:url)"), {"url": "https://hooks.example/secret-path"})
    assert "secret-path" not in str(failed.value)
    engine.dispose()

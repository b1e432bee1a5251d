"""Answers about rows that a newer release has written: with options, and with values, that this one does not know."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core import keys
from app.core.settings import Settings
from app.core.tables import ApiKey, Batch, Job, Operation
from app.main import create_app
from drtl_client import documents
from tests.app.conftest import problem
from tests.app.material import encoded, pair_files, pixels
from tests.app.test_models import Register, register

__all__ = ["register"]  # A fixture of the registry's tests.

Made = dict[str, dict[str, Any]]
NEWER = {
    "an option": {"sharpen": {"by": 0.5, "where": ["edges"]}},
    "a value": {"preset": "overnight", "precision": "fp8", "output": "avif", "ensemble": 16},
    "a kind of value": {"seed": "by the clock", "quality": [80, 90], "priority": 7},
}
LISTS = {"jobs": Job, "operations": Operation, "batches": Batch}
CLIENTS: dict[str, type[documents.Job | documents.Operation | documents.Batch]] = {
    "jobs": documents.Job,
    "operations": documents.Operation,
    "batches": documents.Batch,
}
written_newer = pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
everywhere = pytest.mark.parametrize("kind", LISTS)


@pytest.fixture
def made(client: httpx.Client, register: Register) -> Made:
    """A job, an image and a batch that wait, as they were answered."""
    register()
    job = client.post("/v1/jobs", files=pair_files(2), data={"name": "other"})
    batch = client.post("/v1/batches", files={"images": ("a.png", encoded(pixels()))}, data={"model": "scanner"})
    headers = {"Content-Type": "image/png", "Prefer": "respond-async"}
    image = client.post("/v1/models/scanner/super-resolve", content=encoded(pixels()), headers=headers)
    return {"jobs": job.json(), "operations": image.json(), "batches": batch.json()}


@pytest.fixture
def rewrite(made: Made, rows: sessionmaker[Session]) -> Callable[..., None]:
    """Writes a row's options as another release would have done."""

    def write(kind: str, options: dict[str, Any]) -> None:
        with rows.begin() as session:
            row = session.get_one(LISTS[kind], made[kind]["id"])
            assert isinstance(row, Job | Operation | Batch)
            row.options = options

    return write


@everywhere
@written_newer
def test_what_a_newer_release_has_stored_is_reported_as_it_is(
    client: httpx.Client, made: Made, rewrite: Callable[..., None], kind: str, newer: dict[str, Any]
) -> None:
    expected = made[kind]["options"] | newer
    rewrite(kind, expected)
    path = f"/v1/{kind}/{made[kind]['id']}"
    answers = [client.get(path), client.get(f"/v1/{kind}"), client.post(f"{path}/cancel")]
    assert [answer.is_success for answer in answers] == [True] * 3, answers[0].text
    one, listed, cancelled = (answer.json() for answer in answers)
    assert one["options"] == cancelled["options"] == expected
    assert expected in [item["options"] for item in listed["items"]]
    assert CLIENTS[kind].of(one).raw["options"] == expected


@everywhere
def test_what_an_older_release_has_not_stored_is_reported_with_its_default(
    client: httpx.Client, made: Made, rewrite: Callable[..., None], kind: str
) -> None:
    asked = made[kind]["options"]
    rewrite(kind, {name: value for name, value in asked.items() if name == "name"})
    assert client.get(f"/v1/{kind}/{made[kind]['id']}").json()["options"] == asked


@written_newer
def test_such_options_are_still_refused_in_requests(
    client: httpx.Client, register: Register, newer: dict[str, Any]
) -> None:
    register()
    dataset = client.post("/v1/datasets", files=pair_files(2)).json()["id"]
    name = next(iter(newer))
    body = {"dataset_id": dataset, "name": "other", name: newer[name]}
    assert problem(client.post("/v1/jobs", json=body), 422, "unprocessable")["pointer"] == f"/{name}"


def test_a_key_with_a_limit_of_a_newer_release_works_with_those_that_are_known(rows: sessionmaker[Session]) -> None:
    with rows.begin() as session:
        key, _ = keys.create(session, "newer", ["read"], limits={"pairs": 7})
        key.limits = {**key.limits, "gpu_hours": 3}
        limits = keys.Limits.of(key, Settings())
    assert limits == replace(keys.Limits.of(ApiKey(limits={}), Settings()), pairs=7)


@pytest.mark.parametrize("schema", ["JobOut", "OperationOut", "BatchOut", "BatchWithItems"])
def test_the_document_describes_every_known_option_and_allows_others(schema: str) -> None:
    document = create_app().openapi()
    options = document["components"]["schemas"][schema]["properties"]["options"]
    assert all(each.keys() & {"description", "default", "examples"} for each in options["properties"].values())
    assert options["additionalProperties"] is True
    restrictions = ("enum", "const", "pattern", "minimum", "exclusiveMinimum", "maximum")
    assert [word for word in restrictions if f'"{word}":' in json.dumps(options)] == []

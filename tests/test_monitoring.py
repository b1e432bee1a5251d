"""The dashboard and the alert rules ask for metrics and labels that exist, and every metric and alert is explained."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.core.settings import Settings
from app.core.telemetry import GPU_MEMORY, READ
from app.main import create_app
from migrations import migrate
from tests.app.conftest import connected

ROOT = Path(__file__).parents[1]
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())["panels"]
PAGE = (ROOT / "docs/operations.md").read_text()
(SCALED,) = (yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
QUERIES = [
    *(rule["expr"] for rule in RULES),
    *(panel["targets"][0]["expr"] for panel in PANELS),
    *(trigger["metadata"]["query"] for trigger in SCALED["spec"]["triggers"]),
]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> dict[str, set[str]]:
    """The samples' names that a service exposes, with the names of their labels."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("monitored"), broker_url=valkey_url)
    migrate(settings.database_url)
    with connected(create_app(settings)) as client:
        client.get("/healthz")
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {reading.name: {reading.label} - {""} for reading in READ}  # None before a sweep.
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    assert GPU_MEMORY.name in found
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_asks_for_what_exists(query: str, exposed: dict[str, set[str]]) -> None:
    names = re.findall(r"drtl_\w+", query)
    assert names
    assert set(names) <= set(exposed), query
    labels = {label for name in names for label in exposed[name]} | {"le", "instance"}
    asked = re.findall(r"(\w+)=~?\"", query)
    for listed in re.findall(r"by \(([^)]+)\)", query):
        asked += listed.split(", ")
    assert set(asked) <= labels, query


def test_every_metric_is_explained_and_every_explained_one_exists(exposed: dict[str, set[str]]) -> None:
    explained = set(re.findall(r"`(drtl_\w+)", PAGE))
    parts = r"_(bucket|count|sum|created)$"
    assert explained == {re.sub(parts, "", name) for name in exposed if not name.endswith("_created")}


def test_every_alert_is_explained() -> None:
    assert {rule["alert"] for rule in RULES} == set(re.findall(r"^\| `(Drtl\w+)`", PAGE, re.MULTILINE))

"""Lists in the terminal: whole ids at any width, and a word where there is nothing to list."""

import io
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from app import terminal
from app.api import examples
from app.commands import datasets, keys, webhooks
from app.core.settings import Settings
from app.listing import Listing
from app.main import create_app
from tests.app.conftest import connected
from tests.app.test_cli import drtl

WEBHOOK: dict[str, Any] = {
    "id": "wh_0198f2c9d4a0b1c2d3e4f5a6",
    "url": "https://lab.example/drtl",
    "events": ["job.started", "job.succeeded"],
    "enabled": False,
    "failing_since": None,
    "disabled_reason": "nothing could be delivered for five days",
}
DELIVERY: dict[str, Any] = {
    "id": "msg_0198f2c9d4a0b1c2d3e4f5a6",
    "event": "job.graph_ready",
    "job_id": examples.JOB["id"],
    "state": "delivered",
    "attempts": [{"status": None, "error": "ConnectTimeout"}],
}
KEY: dict[str, Any] = {
    "id": "0a1b2c3d4e5f",
    "name": "laboratory of the ground floor",
    "owner": "lab",
    "scopes": ["read", "train", "infer"],
    "revoked_at": None,
    "expires_at": None,
    "usable": True,
    "last_used_at": None,
}
MODEL = examples.MODEL | {"name": "scanner-of-the-ground-floor"}
LISTS: list[tuple[Callable[[Any], RenderableType], dict[str, Any], str]] = [
    (terminal.jobs_table, examples.JOB, examples.JOB["id"]),
    (terminal.models_table, MODEL, MODEL["name"]),
    (datasets.table, examples.DATASET, examples.DATASET["id"]),
    (webhooks.table, WEBHOOK, WEBHOOK["id"]),
    (webhooks.deliveries_table, DELIVERY, DELIVERY["id"]),
    (keys.table, KEY, KEY["id"]),
]


def lines_of(shown: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
@pytest.mark.parametrize(("table", "row", "name"), LISTS, ids=lambda given: getattr(given, "__qualname__", None))
def test_an_id_is_never_cut(table: Callable[[Any], RenderableType], row: dict[str, Any], name: str, width: int) -> None:
    lines = lines_of(table([row]), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert name in text
    assert "…" not in text
    for whole in re.findall(r"\b(?:job|ds|wh|msg)_[0-9a-f]*", text):
        assert whole in {examples.JOB["id"], name}


def test_a_terminal_narrower_than_an_id_shows_all_of_it_in_lines() -> None:
    lines = lines_of(Listing(("id", "state"), [("job_0198f2c4b0e2", "good")]), 8)
    assert "".join(line.strip() for line in lines[2:]) == "job_0198f2c4b0e2"


def test_columns_are_left_out_from_the_end_and_no_earlier_than_they_must() -> None:
    rows = [("id_1", Text("good"), "a word or two and more"), ("id_2", Text("better"), "none")]
    listing = Listing(("id", "state", "words"), rows, folding={"words"})
    headings = [lines_of(listing, width)[0].split() for width in (24, 23, 12, 11)]  # 4 + 2 + 6 + 2 + at least 12
    assert headings == [["id", "state"], ["id", "state"], ["id", "state"], ["id"]]
    assert lines_of(listing, 26)[0].split() == ["id", "state", "words"]


def test_what_others_have_named_is_no_markup() -> None:
    assert "[red]x[/]" in lines_of(Listing(("name",), [("[red]x[/]",)]), 40)[2]


COMMANDS = [
    ("There is no job.", ["jobs", "list"]),
    ("There is no job that is running.", ["jobs", "list", "--state", "running"]),
    ("There is no model.", ["models", "list"]),
    ("There is no dataset.", ["datasets", "list"]),
    ("There is no webhook.", ["webhooks", "list"]),
]


@pytest.mark.parametrize(("said", "command"), COMMANDS, ids=lambda given: " ".join(given) if len(given) < 5 else "")
def test_an_empty_list_is_told_beside_the_results_and_is_no_failure(
    client: httpx.Client, said: str, command: list[str]
) -> None:
    told = drtl(*command, "--url", str(client.base_url))
    assert (told.returncode, told.stdout, told.stderr) == (0, "", f"{said}\n")
    as_json = drtl(*command, "--url", str(client.base_url), "--json")
    assert (as_json.returncode, json.loads(as_json.stdout), as_json.stderr) == (0, [], "")


def test_messages_that_were_not_sent_are_told_so_too(api_settings: Settings) -> None:
    settings = api_settings.model_copy(update={"webhook_key": "k" * 32, "webhook_networks": "127.0.0.0/8"})
    with connected(create_app(settings)) as client:
        made = client.post("/v1/webhooks", json={"url": "https://127.0.0.1:8443/hook"}).json()
        told = [
            drtl("webhooks", "deliveries", made["id"], "--url", str(client.base_url), *narrowed)
            for narrowed in ([], ["--state", "failed"])
        ]
    assert [(each.returncode, each.stdout) for each in told] == [(0, ""), (0, "")]
    assert [each.stderr for each in told] == ["Nothing was sent yet.\n", "Nothing that was sent is failed.\n"]

"""`drtl models …`: the registry of trained models."""

from typing import Annotated

import typer

from app.commands.options import AsJson, Key, ModelRef, Url, connect
from app.commands.output import present
from app.terminal import card_panel, models_table


def list_models(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Every model by name."""
    with connect(url, key) as client:
        found = [model.raw for model in client.models.list()]
    present(found, models_table(found), as_json=as_json)


def show(model: ModelRef, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """A model's card: what it was trained on, how, and what it gains."""
    with connect(url, key) as client:
        found = client.models[model].version()
    present(found.raw, card_panel(found.raw), as_json=as_json)


def promote(
    model: ModelRef,
    alias: Annotated[str, typer.Option(help="The alias to move.")] = "production",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let an alias point at a version; `production` is what is used where nobody names a version."""
    with connect(url, key) as client:
        moved = client.models[model].promote(alias)
    present(moved.raw, f"{moved.name}@{moved.alias} is now version {moved.version}", as_json=as_json)

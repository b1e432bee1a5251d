"""`drtl models …`: the registry of trained models."""

from typing import Annotated

import typer

from app.commands.options import AsJson, Url, connect
from app.commands.output import present
from app.terminal import card_panel, models_table


def list_models(as_json: AsJson = False, url: Url = None) -> None:
    """Every model by name."""
    with connect(url) as client:
        found = client.models()
    present(found, models_table(found), as_json=as_json)


def show(
    model: Annotated[str, typer.Argument(help="name, or name@version.")], as_json: AsJson = False, url: Url = None
) -> None:
    """A model's card: what it was trained on, how, and what it gains."""
    with connect(url) as client:
        found = client.model_version(model)
    present(found, card_panel(found), as_json=as_json)

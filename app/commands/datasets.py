"""`drtl datasets …`: pairs that were uploaded."""

from typing import Annotated, Any

import typer

from app.commands.options import AsJson, DatasetId, Key, Url, Yes, connect
from app.commands.output import confirm, console, present
from app.listing import Listing
from app.terminal import day_and_time


def list_datasets(
    limit: Annotated[int, typer.Option(help="How many of the newest.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """The newest datasets."""
    with connect(url, key) as client:
        found = [dataset.raw for dataset in client.datasets.list(limit=limit)]
    present(found, table(found), as_json=as_json)


def delete(dataset: DatasetId, yes: Yes = False, url: Url = None, key: Key = None) -> None:
    """Forget uploaded pairs that no job names any more."""
    with connect(url, key) as client:
        confirm(f"Delete {dataset} with its images?", yes=yes)
        client.datasets.delete(dataset)
    console.print(f"{dataset} is deleted", soft_wrap=True, highlight=False)


def table(found: list[dict[str, Any]]) -> Listing | str:
    """The datasets, a row each."""
    if not found:
        return "There is no dataset."
    rows = [
        (dataset["id"], str(len(dataset["pairs"])), str(dataset["scale"]), day_and_time(dataset["created_at"]))
        for dataset in found
    ]
    return Listing(("id", "pairs", "scale", "created"), rows)

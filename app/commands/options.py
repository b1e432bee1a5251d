"""Options and arguments that several commands take, the connection that they lead to, and their completion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from drtl_client import Client, DRTLError

COMPLETION_S: Final = 1.0  # Longer than this nobody waits for the Tab key.
COMPLETIONS: Final = 50


def connect(url: str | None, key: str | None = None) -> Client:
    return Client(url, key=key, retries=2)


def complete_job(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The newest jobs whose id begins so, with their model and state beside them."""
    try:
        with _quick(context) as client:
            for job in client.jobs.list(limit=COMPLETIONS):
                if job.id.startswith(incomplete):
                    yield job.id, f"{job.name}, {job.state}"
    except DRTLError:
        return  # Without a service there is nothing to offer, and nobody to tell.


def complete_dataset(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The newest datasets whose id begins so, with the number of their pairs beside them."""
    try:
        with _quick(context) as client:
            for dataset in client.datasets.list(limit=COMPLETIONS):
                if dataset.id.startswith(incomplete):
                    yield dataset.id, f"{len(dataset.pairs)} pairs"
    except DRTLError:
        return


def complete_model(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Models, and their versions and aliases once a name with @ is there."""
    try:
        with _quick(context) as client:
            for model in client.models.list(limit=COMPLETIONS):
                offered = [model.name, *(f"{model.name}@{end}" for end in (*model.aliases, *model.versions))]
                for reference in offered if "@" in incomplete else offered[:1]:
                    if reference.startswith(incomplete):
                        yield reference, f"{len(model.versions)} versions"
    except DRTLError:
        return


def _quick(context: typer.Context) -> Client:
    given = context.params
    return Client(given.get("url"), key=given.get("key"), timeout_s=COMPLETION_S, retries=0)


Url = Annotated[
    str | None,
    typer.Option(
        envvar="DRTL_URL",
        show_envvar=False,
        help="The service; otherwise DRTL_URL, otherwise the one `drtl up` runs here.",
    ),
]
Key = Annotated[str | None, typer.Option(envvar="DRTL_KEY", show_envvar=False, help="API key; otherwise DRTL_KEY.")]
DataDir = Annotated[Path | None, typer.Option(help="Database, images, models and logs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.")]
JobId = Annotated[str, typer.Argument(help="The job's id, as `drtl jobs list` shows it.", autocompletion=complete_job)]
DatasetId = Annotated[
    str,
    typer.Argument(help="The dataset's id, as `drtl datasets list` shows it.", autocompletion=complete_dataset),
]
ModelRef = Annotated[str, typer.Argument(help="name, name@alias or name@version.", autocompletion=complete_model)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

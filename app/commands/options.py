"""Options and arguments that several commands take, and the connection that they lead to."""

from typing import Annotated

import typer

from app import client as http

Url = Annotated[
    str | None, typer.Option(help="The service; otherwise DRTL_URL, otherwise the one `drtl up` runs here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as it is.")]
JobId = Annotated[str, typer.Argument(help="The job's id, as `drtl jobs list` shows it.")]


def connect(url: str | None) -> http.Client:
    return http.Client(http.find_service(url))

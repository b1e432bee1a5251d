"""`drtl graph`: which known distortions a job's target resembles."""

from pathlib import Path
from typing import Annotated

import typer

from app import client as http
from app.commands.options import AsJson, JobId, Url, connect
from app.commands.output import errors, present
from app.terminal import gamma_table


def graph(
    job: JobId,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Which known distortions a job's target resembles, ranked by γ."""
    with connect(url) as client:
        found = client.graph(job)
        if found is None:
            raise http.ClientError("the job has no graph yet", f"it comes within seconds: drtl jobs watch {job}")
        if svg is not None:
            svg.write_bytes(client.graph_svg(job))
    present(found, gamma_table(found), as_json=as_json)
    if svg is not None:
        errors.print(f"drawn into {svg}")

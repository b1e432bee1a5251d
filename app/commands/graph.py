"""`drtl graph`: which known distortions a job's target resembles."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import AsJson, JobId, Key, Url, connect
from app.commands.output import errors, present, writing
from app.terminal import gamma_table


def graph(
    job: JobId,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file.", dir_okay=False)] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a job that has only begun.", min=0.0)] = 0.0,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Which known distortions a job's target resembles, ranked by γ."""
    with connect(url, key) as client:
        found = client.jobs.relation(job, wait_s=wait)
        present(found.raw, gamma_table(found.raw), as_json=as_json)
        if svg is not None:
            drawing = client.jobs.graph_svg(job)
            with writing(svg):
                svg.write_bytes(drawing)
            errors.print(f"drawn into {svg}", soft_wrap=True)

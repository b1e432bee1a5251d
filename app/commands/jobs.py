"""`drtl jobs …`: few-shot trainings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app import client as http
from app.commands.options import AsJson, JobId, Url, connect
from app.commands.output import console, present
from app.terminal import Stopwatch, gamma_table, job_panel, jobs_table, progress_of


def create(
    folder: Annotated[Path, typer.Argument(help="Few-shot pairs: a folder with clean/ and distorted/.")],
    name: Annotated[str | None, typer.Option(help="Name of the model to make; otherwise the folder's.")] = None,
    preset: Annotated[str, typer.Option(help="quick, standard or paper.")] = "quick",
    scheme: Annotated[str, typer.Option(help="auto, baseline, pretrain or drtl-pretrain.")] = "auto",
    backbone: Annotated[str, typer.Option(help="vdsr, dncnn, rcan or rdn.")] = "vdsr",
    unshuffle: Annotated[int | None, typer.Option(help="1, 2 or 4: work at that part of the resolution.")] = None,
    init: Annotated[str, typer.Option(help="prior, or scratch as in the paper.")] = "prior",
    seed: Annotated[int, typer.Option(help="The same seed on the same machine gives the same model.")] = 0,
    new_version: Annotated[bool, typer.Option("--new-version", help="Add a version to the model that exists.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and follow the job.")] = False,
    url: Url = None,
) -> None:
    """Upload pairs and start training on them."""
    options: dict[str, Any] = {"name": name or http.model_name(folder), "preset": preset, "scheme": scheme}
    options |= {"backbone": backbone, "init": init, "seed": seed, "new_version": new_version}
    if unshuffle is not None:
        options["unshuffle"] = unshuffle
    with connect(url) as client:
        pairs = http.pairs_in(folder)
        job = client.create_job(pairs, options)
        console.print(f"{len(pairs)} pairs uploaded, job [bold]{job['id']}[/] accepted")
        if watch:
            follow(client, job["id"])
        else:
            console.print(f"follow it with: drtl jobs watch {job['id']}")


def list_jobs(
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """The newest jobs."""
    with connect(url) as client:
        found = client.jobs(limit, state)
    present(found, jobs_table(found), as_json=as_json)


def show(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """All about one job."""
    with connect(url) as client:
        found = client.job(job)
    present(found, job_panel(found), as_json=as_json)


def watch(job: JobId, url: Url = None) -> None:
    """Follow a job to its end; Ctrl-C stops watching, not the job."""
    with connect(url) as client:
        follow(client, job)


def cancel(job: JobId, url: Url = None) -> None:
    """Ask a job to stop."""
    with connect(url) as client:
        console.print(f"the job is {client.cancel(job)['state']}")


def follow(client: http.Client, job_id: str) -> None:
    """Show progress, the graph once it is there, and the end; exits with 1 where the job did not succeed."""
    watch = Stopwatch(console)
    graph = None
    job: http.Json = {}
    with progress_of(console) as show:
        for job in client.follow(job_id):
            show(job)
            if graph is None and job["state"] in http.GRAPH_STATES and (graph := client.graph(job_id)):
                watch.say("the relation graph is there")
                console.print(gamma_table(graph))
    console.print(job_panel(job))
    if job["state"] != "succeeded":
        raise typer.Exit(1)

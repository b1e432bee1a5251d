"""`drtl jobs …`: few-shot trainings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from app.commands.options import AsJson, JobId, Key, Url, Yes, connect
from app.commands.output import confirm, console, errors, present, print_json
from app.following import follow
from app.terminal import Stopwatch, gamma_table, job_panel, jobs_table, pair_warnings, upload_of
from drtl_client import Client, Job
from drtl_client.options import Option, fields_of

OF_THE_CALL: Final = frozenset({"pairs", "on_upload", "idempotency_key"})  # Arguments of the client's, not options.


def create(
    context: typer.Context,
    pairs: Annotated[
        Path, typer.Argument(help="Few-shot pairs: a folder with clean/ and distorted/, or a zip of such.", exists=True)
    ],
    name: Annotated[str | None, typer.Option(help="Name of the model to make; otherwise the folder's.")] = None,
    preset: Annotated[str, typer.Option(help="draft, quick, standard or paper.")] = "quick",
    scheme: Annotated[str, typer.Option(help="auto, baseline, pretrain, maml, drtl-pretrain or drtl-maml.")] = "auto",
    backbone: Annotated[str, typer.Option(help="vdsr, vdsr-small, dncnn, rcan or rdn.")] = "vdsr",
    unshuffle: Annotated[int | None, typer.Option(help="1, 2 or 4: work at that part of the resolution.")] = None,
    init: Annotated[str, typer.Option(help="prior, or scratch as in the paper.")] = "prior",
    seed: Annotated[int, typer.Option(help="The same seed on the same machine gives the same model.")] = 0,
    priority: Annotated[str, typer.Option(help="low, normal or high; a key may be limited to less.")] = "normal",
    new_version: Annotated[bool, typer.Option("--new-version", help="Add a version to the model that exists.")] = False,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Any other option of a job, as NAME=VALUE; repeatable.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "--watch", help="Stay and follow the job to its end.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Upload pairs and start training on them; with --wait, the whole main job in one line."""
    flags: dict[str, Option] = {
        "name": name,
        "preset": preset,
        "scheme": scheme,
        "backbone": backbone,
        "unshuffle": unshuffle,
        "init": init,
        "seed": seed,
        "priority": priority,
        "new_version": new_version,
    }
    options = merged(context, flags, parsed(option or []))
    if options["priority"] == "normal":  # A service of an earlier release does not know the option.
        del options["priority"]
    with connect(url, key) as client:
        with upload_of(errors) as show:
            job = client.jobs.create(pairs, on_upload=show, **options)
        dataset = client.datasets.get(job.dataset_id)
        errors.print(f"{len(dataset.pairs)} pairs uploaded, job [bold]{job.id}[/] accepted", soft_wrap=True)
        if warnings := pair_warnings(dataset.raw["pairs"]):
            errors.print(warnings)
        if wait:
            watched(client, job, as_json=as_json)
        elif as_json:
            print_json(job.raw)
        else:
            console.print(f"follow it with: drtl jobs watch {job.id}", soft_wrap=True)


def parsed(options: list[str]) -> dict[str, str]:
    """NAME=VALUE as a dictionary. Raises a usage error."""
    given: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option!r} is not NAME=VALUE", param_hint="--option")
        if name in OF_THE_CALL:
            raise typer.BadParameter(f"{name!r} is no option of a job", param_hint="--option")
        if given.setdefault(name, value) != value:
            raise _twice(name, given[name], value)
    return given


def merged(context: typer.Context, flags: dict[str, Option], given: dict[str, str]) -> dict[str, Any]:
    """All options as the service's words, where what was given by name counts before a flag's default.

    Raises a usage error where a flag that was given says something else.
    """
    words = fields_of(flags)
    for name in words.keys() & given.keys():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and words[name] != given[name]:
            raise _twice(name, words[name], given[name])
    return words | given


def _twice(name: str, one: str, other: str) -> typer.BadParameter:
    return typer.BadParameter(f"{name} is given twice, as {one!r} and as {other!r}", param_hint="--option")


def list_jobs(
    limit: Annotated[int, typer.Option(help="How many of the newest.", min=1)] = 20,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """The newest jobs."""
    with connect(url, key) as client:
        found = [job.raw for job in client.jobs.list(limit=limit, state=state)]
    present(found, jobs_table(found, state), as_json=as_json)


def show(job: JobId, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """All about one job."""
    with connect(url, key) as client:
        found = client.jobs.get(job)
    present(found.raw, job_panel(found.raw), as_json=as_json)


def watch(job: JobId, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Follow a job to its end; Ctrl-C stops watching, not the job. With --json, one event a line."""
    with connect(url, key) as client:
        if as_json:
            with told_that_it_goes_on(job):
                for event in client.jobs.watch(job):
                    print_json(event.raw, indent=None)
            ended_well(client.jobs.get(job))
        else:
            watched(client, client.jobs.get(job), as_json=False)


def cancel(job: JobId, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Ask a job to stop."""
    with connect(url, key) as client:
        found = client.jobs.cancel(job)
    present(found.raw, f"the job is {found.state}", as_json=as_json)


def delete(job: JobId, yes: Yes = False, url: Url = None, key: Key = None) -> None:
    """Forget a job that has ended, once the model version that it made is deleted."""
    with connect(url, key) as client:
        question = f"Delete {job} with its graph, preview and events? Pairs that no job uses go by their age."
        confirm(question, yes=yes)
        client.jobs.delete(job)
    console.print(f"{job} is deleted", soft_wrap=True, highlight=False)


def watched(client: Client, job: Job, *, as_json: bool) -> None:
    """Show progress, the graph once it is there, and the end; exits with 1 where the job did not succeed."""
    with told_that_it_goes_on(job.id):
        ended = follow(
            client,
            job,
            Stopwatch(live_console(as_json=as_json)),
            on_graph=lambda graph: None if as_json else console.print(gamma_table(graph.raw)),
        )
    present(ended.raw, job_panel(ended.raw), as_json=as_json)
    if ended.succeeded and ended.model is not None and not as_json:
        console.print(
            f"\nrestore an image with: drtl upscale photo.png --model {ended.model.reference}", soft_wrap=True
        )
    ended_well(ended)


def live_console(*, as_json: bool) -> Console:
    """Where progress goes: to the results where a person reads both, or else beside them."""
    return console if console.is_terminal and not as_json else errors


@contextmanager
def told_that_it_goes_on(job_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        errors.print(f"the job goes on; drtl jobs watch {job_id} follows it, drtl jobs cancel {job_id} stops it")
        raise


def ended_well(job: Job) -> None:
    if not job.succeeded:
        raise typer.Exit(1)

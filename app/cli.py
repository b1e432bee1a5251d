"""The `drtl` command: starts the service, and talks to a running one over HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from app import client as http
from app.pairs_command import pairs
from app.terminal import Stopwatch, card_panel, gamma_table, job_panel, jobs_table, models_table, progress_of

app = typer.Typer(
    help="Few-shot image restoration as a service: pairs in, relation graph out, a model that restores the rest.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
jobs = typer.Typer(help="Few-shot trainings.", no_args_is_help=True)
models = typer.Typer(help="Registered models.", no_args_is_help=True)
prior = typer.Typer(help="The prior that transfer starts from.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
app.add_typer(models, name="models")
app.add_typer(prior, name="prior")
app.add_typer(pairs, name="pairs")

console = Console()
errors = Console(stderr=True)

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

Url = Annotated[
    str | None, typer.Option(help="The service; otherwise DRTL_URL, otherwise the one `drtl up` runs here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as it is.")]
JobId = Annotated[str, typer.Argument(help="The job's id, as `drtl jobs list` shows it.")]


def connect(url: str | None) -> http.Client:
    return http.Client(http.find_service(url))


def present(answer: Any, rendered: RenderableType, *, as_json: bool) -> None:
    """Print the service's answer for people, or as it came for programs."""
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        console.print(rendered)


# ---- the service


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Taken if free; 0 picks one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Database, images, models and logs.")] = None,
) -> None:
    """Start the service on this machine and leave it running until Ctrl-C."""
    if port is not None:
        os.environ["DRTL_PORT"] = str(port)
    if data_dir is not None:
        os.environ["DRTL_DATA_DIR"] = str(data_dir.resolve())
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "app.embedded"])  # noqa: S606 - this process becomes the service


@app.command()
def demo(
    pairs: Annotated[
        Path | None, typer.Option(help="A folder with clean/ and distorted/; otherwise demo pairs.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where pictures, graph and numbers go.")] = Path("demo-output"),
    preset: Annotated[str, typer.Option(help="quick, standard or paper.")] = "quick",
) -> None:
    """Run the main job from end to end, over HTTP, on a service of its own."""
    from app.demo import run_demo  # Spares the other commands scipy and scikit-image.

    run_demo(console, pairs, output, preset)


@app.command(context_settings=PASS_ON, add_help_option=False)
def bench(context: typer.Context) -> None:
    """Run the main job on the real pairs beside the checkout and record it under benchmarks/results/."""
    script = Path(__file__).parents[1] / "benchmarks" / "main_job.py"
    if not script.exists():
        raise http.ClientError(f"{script} is missing: benchmarks are part of the source checkout only")
    run_child(str(script), *context.args)


@prior.command("train", context_settings=PASS_ON, add_help_option=False)
def prior_train(context: typer.Context) -> None:
    """Rebuild the prior from a folder of clean images; takes the arguments of `python -m ml.prior_training`."""
    run_child("-m", "ml.prior_training", *context.args)


def run_child(*arguments: str) -> NoReturn:
    """Run Python in a process of its own (this side loads no torch) and end as it ends."""
    raise typer.Exit(subprocess.run([sys.executable, *arguments], check=False).returncode)


# ---- jobs


@jobs.command("create")
def jobs_create(
    folder: Annotated[Path, typer.Argument(help="Few-shot pairs: a folder with clean/ and distorted/.")],
    name: Annotated[str | None, typer.Option(help="Name of the model to make; otherwise the folder's.")] = None,
    preset: Annotated[str, typer.Option(help="quick, standard or paper.")] = "quick",
    scheme: Annotated[str, typer.Option(help="auto, baseline, pretrain or drtl-pretrain.")] = "auto",
    init: Annotated[str, typer.Option(help="prior, or scratch as in the paper.")] = "prior",
    seed: Annotated[int, typer.Option(help="The same seed on the same machine gives the same model.")] = 0,
    new_version: Annotated[bool, typer.Option("--new-version", help="Add a version to the model that exists.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and follow the job.")] = False,
    url: Url = None,
) -> None:
    """Upload pairs and start training on them."""
    options: dict[str, Any] = {"name": name or http.model_name(folder), "preset": preset, "scheme": scheme}
    options |= {"init": init, "seed": seed, "new_version": new_version}
    with connect(url) as client:
        pairs = http.pairs_in(folder)
        job = client.create_job(pairs, options)
        console.print(f"{len(pairs)} pairs uploaded, job [bold]{job['id']}[/] accepted")
        if watch:
            follow(client, job["id"])
        else:
            console.print(f"follow it with: drtl jobs watch {job['id']}")


@jobs.command("list")
def jobs_list(
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """The newest jobs."""
    with connect(url) as client:
        found = client.jobs(limit, state)
    present(found, jobs_table(found), as_json=as_json)


@jobs.command("show")
def jobs_show(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """All about one job."""
    with connect(url) as client:
        found = client.job(job)
    present(found, job_panel(found), as_json=as_json)


@jobs.command("watch")
def jobs_watch(job: JobId, url: Url = None) -> None:
    """Follow a job to its end; Ctrl-C stops watching, not the job."""
    with connect(url) as client:
        follow(client, job)


@jobs.command("cancel")
def jobs_cancel(job: JobId, url: Url = None) -> None:
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


@app.command()
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


# ---- models


@models.command("list")
def models_list(as_json: AsJson = False, url: Url = None) -> None:
    """Every model by name."""
    with connect(url) as client:
        found = client.models()
    present(found, models_table(found), as_json=as_json)


@models.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="name, or name@version.")], as_json: AsJson = False, url: Url = None
) -> None:
    """A model's card: what it was trained on, how, and what it gains."""
    with connect(url) as client:
        found = client.model_version(model)
    present(found, card_panel(found), as_json=as_json)


@app.command()
def upscale(
    files: Annotated[list[Path], typer.Argument(help="PNG or JPEG images.", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option(help="name, name@alias or name@version.")],
    output: Annotated[Path, typer.Option(help="Folder for the restored images.")] = Path(),
    url: Url = None,
) -> None:
    """Restore images with a registered model; writes NAME.restored.png for each."""
    output.mkdir(parents=True, exist_ok=True)
    with connect(url) as client:
        for file in files:
            answer = client.super_resolve(model, file)
            target = output / f"{file.stem}.restored.png"
            target.write_bytes(answer.content)
            console.print(f"{file} → {target}  [dim]{answer.headers.get('X-DRTL-Model', model)}[/]", soft_wrap=True)


def main() -> None:
    """Run the command; what a person can act on is told in a line or two, not in a traceback."""
    try:
        app()
    except http.ClientError as error:
        errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        if error.hint:
            errors.print(Text.assemble(("next:  ", "dim"), error.hint), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(130)

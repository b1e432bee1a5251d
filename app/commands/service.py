"""Commands that start programs on this machine: the service, the demo, the benchmark, the training of the prior."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from app.commands.options import DataDir
from app.commands.output import console
from app.failures import CommandFailed


def up(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Taken if free; 0 picks one.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the service on this machine and leave it running until Ctrl-C."""
    if port is not None:
        os.environ["DRTL_PORT"] = str(port)
    if data_dir is not None:
        os.environ["DRTL_DATA_DIR"] = str(data_dir.resolve())
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "app.embedded"])  # noqa: S606 - this process becomes the service


def demo(
    pairs: Annotated[
        Path | None, typer.Option(help="A folder with clean/ and distorted/; otherwise demo pairs.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where pictures, graph and numbers go.")] = Path("demo-output"),
    preset: Annotated[
        Literal["draft", "quick", "standard", "paper"], typer.Option(help="How much is trained.")
    ] = "quick",
) -> None:
    """Run the main job from end to end, over HTTP, on a service of its own."""
    from app.demo import run_demo  # Spares the other commands scipy and scikit-image.

    run_demo(console, pairs, output, preset)


def bench(context: typer.Context) -> None:
    """Measure the main job on the real pairs beside the checkout; `bench paper`: the paper's tables and figures."""
    script = Path(__file__).parents[2] / "benchmarks" / "main_job.py"
    if not script.exists():
        raise CommandFailed(f"{script} is missing: benchmarks are part of the source checkout only")
    match context.args:
        case ["paper", *arguments]:
            run_child("-m", "benchmarks.paper", *arguments)
        case arguments:
            run_child(str(script), *arguments)


def prior_train(context: typer.Context) -> None:
    """Rebuild the prior from folders of clean images; takes the arguments of `python -m ml.prior_training`."""
    run_child("-m", "ml.prior_training", *context.args)


def prior_extend(context: typer.Context) -> None:
    """Let a prior rank distortions that came after it; takes the arguments of `python -m ml.prior_extension`."""
    run_child("-m", "ml.prior_extension", *context.args)


def prior_pretrain(context: typer.Context) -> None:
    """Train a prior's weights further, or ones it lacks; takes the arguments of `python -m ml.prior_pretraining`."""
    run_child("-m", "ml.prior_pretraining", *context.args)


def prior_measure(context: typer.Context) -> None:
    """Measure a prior on photographs it has not seen; takes the arguments of `python -m ml.prior_measurement`."""
    run_child("-m", "ml.prior_measurement", *context.args)


def run_child(*arguments: str) -> NoReturn:
    """Run Python in a process of its own (this side loads no torch) and end as it ends.

    Ctrl-C reaches that process too, which may have something to keep: it is waited for, not killed.
    """
    with subprocess.Popen([sys.executable, *arguments]) as child:
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt:
                continue
    raise typer.Exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)  # As a shell says it.

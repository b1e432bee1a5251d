"""Whether `auto` chooses well: whole jobs of each scheme on the real targets, measured on unseen images.

`python benchmarks/auto_race.py [--init scratch|prior] [--unshuffle 4]` runs every scheme's job as the service would, on
the first pairs of train/, of which the job holds some out. Interrupted, it goes on where it was.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import typer
from torch import Tensor

from benchmarks.devices import REPOSITORY, Device, real_devices
from benchmarks.trials import SCALES, Trials, one_thread, settings, shown
from ml.evaluate import mean, quality_of, quality_of_input
from ml.job import run_job
from ml.model_file import unpack
from ml.options import TrainingOptions
from ml.pairs import PairFile, TargetPair
from ml.precision import device
from ml.preview import Preview

Compared = Literal["baseline", "pretrain", "drtl-pretrain", "auto"]
SCHEMES: Final[tuple[Compared, ...]] = get_args(Compared)


class Counting:
    """A follower that counts the training steps."""

    def __init__(self) -> None:
        self.steps = 0

    def progress(self, phase: str, fraction: float, **facts: float | str | Tensor) -> None:
        pass

    def graph(self, graph: dict[str, Any]) -> None:
        pass

    def checkpoint(self, write: Callable[[Path], None]) -> None:
        self.steps += 1

    def preview(self, look: Callable[[], Preview]) -> None:
        pass


def measure(
    init: Annotated[Literal["scratch", "prior"], typer.Option(help="Where transfers start.")] = "scratch",
    unshuffle: Annotated[int, typer.Option(help="Of the network.")] = 4,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    clean: Annotated[Path, typer.Option(help="Clean images.")] = REPOSITORY / "../shared/data/clean/cc0",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/auto-race-INIT.json.")] = None,
) -> None:
    """Every scheme on every target with every seed."""
    one_thread()
    path = output or REPOSITORY / f"benchmarks/results/auto-race-{init}.json"
    command = f"python benchmarks/auto_race.py --init {init} --unshuffle {unshuffle}"
    command += f" --seeds {seeds}" * (seeds > 1)
    scale = replace(SCALES["quick"], seeds=seeds)
    about = settings("auto_race", command, "quick", shots, scale) | {"init": init, "unshuffle": unshuffle}
    trials = Trials(path, about)
    for seed in range(seeds):
        for target in real_devices(targets, shots, scale.images):
            unseen = shown(target.test, scale.side)
            trials.report["inputs"][target.name] = mean(quality_of_input(unseen)).psnr
            files = files_of(target, targets.resolve() / target.name / "train")
            for scheme in SCHEMES:
                options = TrainingOptions(scheme=scheme, init=init, unshuffle=unshuffle, seed=seed)
                named: dict[str, str | int] = {"target": target.name, "seed": seed, "scheme": scheme}
                trials.measure(named, job(files, options, clean, unseen))
    typer.echo(f"Wrote {path}.")


def files_of(target: Device, folder: Path) -> list[PairFile]:
    """The files as a user would upload them."""

    def read(part: str, name: str) -> bytes:
        return next((folder / part).glob(f"{name}.*")).read_bytes()

    return [PairFile(pair.name, read("clean", pair.name), read("distorted", pair.name)) for pair in target.train]


def job(
    files: list[PairFile], options: TrainingOptions, clean: Path, unseen: list[TargetPair]
) -> Callable[[], dict[str, Any]]:
    """A whole job, to be run if need be; what its model has on unseen images, and what it computed."""

    def run() -> dict[str, Any]:
        follower = Counting()
        outcome = run_job(files, options, follower, clean_dir=clean)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            path.write_bytes(outcome.weights)
            network, _ = unpack(path)
        return {
            "psnr": mean(quality_of(network.to(device()), unseen)).psnr,
            "held_out_gain_db": outcome.metrics["gain_db"],
            "chosen": outcome.metrics["chosen"],
            "verdict": outcome.verdict,
            "steps": follower.steps,
            "training_seconds": outcome.metrics["seconds"]["training"],
        }

    return run


if __name__ == "__main__":
    typer.run(measure)

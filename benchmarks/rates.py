"""Which learning rates each backbone wants in short trainings: those of VDSR, and multiples and fractions of them.

`python benchmarks/rates.py` trains on simulated devices, so that the choice takes no part of the real targets: from
nothing and with guided transfer, as `drtl bench paper --scale quick` does, and measures on unseen images. Interrupted,
it goes on where it was.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from benchmarks.devices import REPOSITORY, simulated_devices
from benchmarks.paper.scales import SCALES, Extent
from benchmarks.paper.schemes import Scheme, Training, train, training_of
from benchmarks.trials import Bench, Trials, one_thread, related_tasks, settings
from ml.backbones import BACKBONES, BackboneName
from ml.distortions import PAPERS
from ml.prior import load_prior

FRACTIONS: Final = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
COMPARED: Final[tuple[Scheme, ...]] = ("baseline", "drtl-pretrain")


def measure(
    scale: Annotated[Literal["smoke", "quick"], typer.Option(help="How much to train.")] = "quick",
    backbone: Annotated[list[str] | None, typer.Option(help="Give it once for each; all by default.")] = None,
    clean: Annotated[Path, typer.Option(help="Holds cc0/ and unsplash/.")] = REPOSITORY / "../shared/data/clean",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/rates.json.")] = None,
) -> None:
    """Train every backbone at every fraction of the rates on every device."""
    one_thread()
    extent, prior, seed = SCALES[scale], load_prior(), 0
    path = output or REPOSITORY / "benchmarks/results/rates.json"
    about = settings("rates", f"python benchmarks/rates.py --scale {scale}", scale, shots)
    steps = {"transfer_steps": extent.plain.transfer_steps, "finetune_steps": extent.plain.finetune_steps}
    trials = Trials(path, about | steps | {"deep_steps": extent.deep.finetune_steps})
    names: list[BackboneName] = [name for name in BACKBONES if not backbone or name in backbone]
    for target in simulated_devices(clean, shots, extent.plain.images, seed):
        relation = related_tasks(prior, target.train, seed)
        for name in names:
            bench = Bench.of(target, extent.training(name), clean / "cc0", list(PAPERS), seed)
            trials.report["inputs"][target.name] = bench.input_psnr()
            for fraction in FRACTIONS:
                for scheme in COMPARED:
                    training = training_of(scheme, name, seed, relation, "transferability")
                    named: dict[str, Any] = {"target": target.name, "seed": seed, "backbone": name}
                    named |= {"scheme": scheme, "fraction": fraction}
                    trials.measure(named, trained(bench, training, at_fraction(extent, name, fraction)))
    typer.echo(f"Wrote {path}.")


def trained(bench: Bench, training: Training, extent: Extent) -> Callable[[], dict[str, Any]]:
    """A training, to be run if need be, and what its network has on unseen images."""

    def run() -> dict[str, Any]:
        network, facts = train(bench, training, extent)
        return {"psnr": bench.psnr(network)} | facts

    return run


def at_fraction(extent: Extent, backbone: BackboneName, fraction: float) -> Extent:
    """The same at a fraction of all learning rates."""
    rates = extent.schedules
    scaled = replace(rates, fractions={backbone: fraction}, scratch_rate=rates.scratch_rate * fraction)
    return replace(extent, schedules=scaled)


if __name__ == "__main__":
    typer.run(measure)

"""How many steps the shipped prior saves: fine-tuning from nothing, and from the prior with as many, a fifth, a tenth.

Each, and guided transfer too, with its last layer as it is and fitted in closed form first; after a tenth of the steps
also fitted again, as in a draft; so after a fifth, which is a tenth of the steps of a transfer with its fine-tuning.

`python benchmarks/prior_start.py [--scale quick|standard]` trains on each real target at the rates of the presets
`quick` and `draft` (a tenth of the steps), and measures unseen images along the way. Interrupted, it goes on where it
was. With `--rate`, starts are compared at other rates.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from benchmarks.devices import REPOSITORY, real_devices
from benchmarks.trials import SCALES, Bench, Trials, one_thread, related_tasks, settings
from ml.backbones import BackboneName, build
from ml.distortions import PAPERS
from ml.guidance import guided
from ml.options import PRESETS, TrainingOptions
from ml.precision import device
from ml.prior import Prior, load_prior, theta_name
from ml.read_out import crops_of_a_refit, fit_last_layer

POINTS: Final = 10
REAL: Final = REPOSITORY / "../shared/data/pairs"


@dataclass(frozen=True)
class Network:
    """What is trained."""

    backbone: BackboneName
    unshuffle: int


@dataclass(frozen=True)
class Start:
    """From what, whether the last layer is fitted before and after fine-tuning, and by what its steps are divided."""

    knows: Literal["nothing", "prior", "transfer"]
    probe: bool = False
    divisor: int = 1
    refit: bool = False


STARTS: Final = {
    "nothing": Start("nothing"),
    "nothing, probed": Start("nothing", probe=True),
    "the prior": Start("prior"),
    "the prior, probed": Start("prior", probe=True),
    "the prior, a tenth of the steps": Start("prior", divisor=10),
    "the prior, probed, a tenth of the steps": Start("prior", probe=True, divisor=10),
    "the prior, probed, a tenth of the steps, fitted again": Start("prior", probe=True, divisor=10, refit=True),
    # A tenth of what guided transfer and its fine-tuning take together.
    "the prior, probed, a fifth of the steps, fitted again": Start("prior", probe=True, divisor=5, refit=True),
    "guided transfer": Start("transfer"),
    "guided transfer, probed": Start("transfer", probe=True),
}


def measure(
    scale: Annotated[Literal["smoke", "quick", "standard"], typer.Option(help="How much to train.")] = "quick",
    targets: Annotated[Path, typer.Option(help="Folder of targets.")] = REAL,
    start: Annotated[list[str] | None, typer.Option(help="Give it once for each; all by default.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Give it once for each; the presets' by default.")] = None,
    backbone: Annotated[BackboneName, typer.Option(help="What is trained.")] = "vdsr",
    unshuffle: int = 2,
    prior: Annotated[Path | None, typer.Option(help="Another bundle than the one that ships.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; the scale's by default.")] = None,
    shots: int = 10,
    output: Annotated[
        Path | None,
        typer.Option(help="Default: benchmarks/results/prior-start-SCALE.json, or prior-start-NETWORK.json."),
    ] = None,
) -> None:
    """Train from every start on every target with every seed."""
    one_thread()
    network, usual = Network(backbone, unshuffle), (backbone, unshuffle) == ("vdsr", 2)
    name_of_file = scale if usual else theta_name(backbone, unshuffle)
    path = output or REPOSITORY / f"benchmarks/results/prior-start-{name_of_file}.json"
    command = f"python benchmarks/prior_start.py --scale {scale}"
    command += f" --backbone {backbone}" * (backbone != "vdsr") + f" --unshuffle {unshuffle}" * (unshuffle != 2)
    command += f" --targets {targets}" * (targets != REAL) + f" --prior {prior}" * (prior is not None)
    command += "".join(f' --start "{name}"' for name in start or [])
    command += "".join(f" --rate {one:g}" for one in rate or []) + f" --seeds {seeds}" * (seeds is not None)
    extent = replace(SCALES[scale], seeds=seeds or SCALES[scale].seeds)
    bundle = load_prior(prior)
    another = {} if prior is None else {"prior": bundle.version}
    if not usual:
        another |= {"network": theta_name(backbone, unshuffle)}
    trials = Trials(path, settings("prior_start", command, scale, shots, extent) | another)
    for target in real_devices(targets, shots, extent.images):
        for seed in range(extent.seeds):
            bench = Bench.of(target, extent, None, list(PAPERS), seed)
            trials.report["inputs"][target.name] = bench.input_psnr()
            for name in start or STARTS:
                for one in rate or [usual_rate(STARTS[name], backbone)]:
                    about: dict[str, Any] = {"target": target.name, "seed": seed, "start": name, "rate": one}
                    trials.measure(about, tuned(bench, name, network, bundle, seed, one))
    typer.echo(f"Wrote {path}.")


def usual_rate(start: Start, backbone: BackboneName) -> float:
    """That of the preset that trains so."""
    rates = PRESETS["draft" if start.divisor > 1 else "quick"].of(backbone)
    return {"nothing": rates.scratch_rate, "prior": rates.prior_rate, "transfer": rates.finetune.learning_rate}[
        start.knows
    ]


def tuned(bench: Bench, start: str, of: Network, prior: Prior, seed: int, rate: float) -> Callable[[], dict[str, Any]]:
    """Fine-tuning from one start, to be run if need be; step 0 of the curve is the start itself, after its probe."""
    how = STARTS[start]

    def train() -> dict[str, Any]:
        network = build(of.backbone, of.unshuffle, seed)
        if how.knows == "prior" and not prior.start(network, of.backbone):
            raise SystemExit(f"the prior has no weights of {of.backbone} with unshuffle {of.unshuffle}")
        network = network.to(device())
        if how.knows == "transfer":
            relation = related_tasks(prior, bench.target.train, seed)
            rate_of_transfer = PRESETS["quick"].of(of.backbone).transfer.learning_rate
            bench.transfer(network, guided(relation, TrainingOptions().acting), seed, rate=rate_of_transfer)
        if how.probe:
            fit_last_layer(network, bench.target.train, seed)
        scale = replace(bench.scale, finetune_steps=max(1, bench.scale.finetune_steps // how.divisor))
        untrained = bench.psnr(network)
        found = replace(bench, scale=scale).finetune(network, rate, seed, points=max(1, POINTS // how.divisor))
        if how.refit:
            fit_last_layer(network, bench.target.train, seed, crops=crops_of_a_refit(len(bench.target.train)))
            found["psnr"] = bench.psnr(network)
            found["curve"][str(scale.finetune_steps)] = found["psnr"]
        return found | {"curve": {"0": untrained} | found["curve"]}

    return train


if __name__ == "__main__":
    typer.run(measure)

"""How many steps the shipped prior saves: fine-tuning from nothing, and from the prior with as many and a tenth.

`python benchmarks/prior_start.py [--scale quick|standard]` trains on each real target at the rates of the preset
`quick` and measures unseen images along the way. Interrupted, it goes on where it was.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from benchmarks.devices import REPOSITORY, real_devices
from benchmarks.trials import SCALES, Bench, Trials, one_thread, settings
from ml.backbones import build
from ml.distortions import PAPERS
from ml.options import PRESETS
from ml.precision import device
from ml.prior import Prior, load_prior

BACKBONE: Final = "vdsr"
UNSHUFFLE: Final = 2
POINTS: Final = 10
STARTS: Final[dict[str, tuple[bool, int]]] = {  # Whether from the prior, and by what the steps are divided.
    "nothing": (False, 1),
    "the prior": (True, 1),
    "the prior, a tenth of the steps": (True, 10),
}


def measure(
    scale: Annotated[Literal["smoke", "quick", "standard"], typer.Option(help="How much to train.")] = "quick",
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/prior-start-SCALE.json.")] = None,
) -> None:
    """Train from every start on every target with every seed."""
    one_thread()
    path = output or REPOSITORY / f"benchmarks/results/prior-start-{scale}.json"
    command = f"python benchmarks/prior_start.py --scale {scale}"
    trials = Trials(path, settings("prior_start", command, scale, shots))
    prior = load_prior()
    for target in real_devices(targets, shots, SCALES[scale].images):
        for seed in range(SCALES[scale].seeds):
            bench = Bench.of(target, SCALES[scale], None, list(PAPERS), seed)
            trials.report["inputs"][target.name] = bench.input_psnr()
            for start in STARTS:
                about: dict[str, str | int] = {"target": target.name, "seed": seed, "start": start}
                trials.measure(about, tuned(bench, start, prior, seed))
    typer.echo(f"Wrote {path}.")


def tuned(bench: Bench, start: str, prior: Prior, seed: int) -> Callable[[], dict[str, Any]]:
    """Fine-tuning from one start, to be run if need be; step 0 of the curve is the start itself."""
    knows, divisor = STARTS[start]

    def train() -> dict[str, Any]:
        network = build(BACKBONE, UNSHUFFLE, seed)
        if knows and not prior.start(network, BACKBONE):
            raise SystemExit(f"the prior has no weights of {BACKBONE} with unshuffle {UNSHUFFLE}")
        network = network.to(device())
        rates = PRESETS["quick"]
        scale = replace(bench.scale, finetune_steps=max(1, bench.scale.finetune_steps // divisor))
        untrained = bench.psnr(network)
        rate = rates.prior_rate if knows else rates.scratch_rate
        found = replace(bench, scale=scale).finetune(network, rate, seed, points=max(1, POINTS // divisor))
        return found | {"rate": rate, "curve": {"0": untrained} | found["curve"]}

    return train


if __name__ == "__main__":
    typer.run(measure)

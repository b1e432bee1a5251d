"""Why fine-tuning does not recover on a target far from all known distortions, and what mends it.

`python benchmarks/far_target.py [--scale quick|standard]` fine-tunes on the microscope from nothing, from the shipped
prior at several rates, from parts of it, from mixtures of it with fresh weights, and after transfers of several
lengths, all with the same fine-tuning steps. Interrupted, it goes on where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
import typer

from benchmarks.devices import REPOSITORY, real_devices
from benchmarks.trials import SCALES, Bench, Trials, one_thread, settings
from ml.backbones import SameSize, build
from ml.distortions import PAPERS
from ml.guidance import Guidance, guided
from ml.precision import device
from ml.prior import Prior, load_prior
from ml.relation import Relation, relate
from ml.selection import selected

BACKBONE: Final = "vdsr"
UNSHUFFLE: Final = 2


@dataclass(frozen=True)
class Arm:
    """A start and a fine-tuning rate.

    `knowledge` is how much of the start's weights is the prior's, the rest being fresh ones' (shrink and perturb: Ash
    and Adams, NeurIPS 2020, arXiv:1910.08475); of the body's last `fresh_layers` all are fresh. Then come
    `transfer_share` of the usual γ-guided transfer steps.
    """

    rate: float
    knowledge: float = 1.0
    fresh_layers: int = 0
    transfer_share: float = 0.0


ARMS: Final[dict[str, Arm]] = {
    "from nothing, 1e-4": Arm(1e-4, knowledge=0),
    "from nothing, 5e-4": Arm(5e-4, knowledge=0),
    "from nothing, 1e-3": Arm(1e-3, knowledge=0),
    "from nothing, 2e-3": Arm(2e-3, knowledge=0),
    "transfer from nothing, 1e-4": Arm(1e-4, knowledge=0, transfer_share=1.0),
    "transfer from nothing, 1e-3": Arm(1e-3, knowledge=0, transfer_share=1.0),
    "prior, 1e-4": Arm(1e-4),
    "prior, 2e-4": Arm(2e-4),
    "prior, 5e-4": Arm(5e-4),
    "prior, 1e-3": Arm(1e-3),
    "prior, 2e-3": Arm(2e-3),
    "prior but for the last layer, 1e-3": Arm(1e-3, fresh_layers=1),
    "prior but for the last 4 layers, 1e-3": Arm(1e-3, fresh_layers=4),
    "¾ prior, 1e-3": Arm(1e-3, knowledge=0.75),
    "½ prior, 1e-3": Arm(1e-3, knowledge=0.5),
    "¼ prior, 1e-3": Arm(1e-3, knowledge=0.25),
    "prior, ¼ of the transfer, 1e-3": Arm(1e-3, transfer_share=0.25),
    "prior, whole transfer, 1e-3": Arm(1e-3, transfer_share=1.0),
    "½ prior, ¼ of the transfer, 1e-3": Arm(1e-3, knowledge=0.5, transfer_share=0.25),
}


def measure(
    scale: Annotated[Literal["smoke", "quick", "standard"], typer.Option(help="How much to train.")] = "quick",
    target: Annotated[str, typer.Option(help="Name of the target.")] = "sem",
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    clean: Annotated[Path, typer.Option(help="Clean images.")] = REPOSITORY / "../shared/data/clean/cc0",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/far-target-SCALE.json.")] = None,
) -> None:
    """Train every arm with every seed."""
    one_thread()
    command = f"python benchmarks/far_target.py --scale {scale} --target {target}"
    path = output or REPOSITORY / f"benchmarks/results/far-target-{scale}.json"
    trials = Trials(path, settings("far_target", command, scale, shots))
    prior = load_prior()
    (found,) = (each for each in real_devices(targets, shots, SCALES[scale].images) if each.name == target)
    for seed in range(SCALES[scale].seeds):
        bench = Bench.of(found, SCALES[scale], clean, list(PAPERS), seed)
        trials.report["inputs"][target] = bench.input_psnr()
        relation = selected(relate(prior.drn.to(device()), prior.prototypes, found.train, seed), "paper")
        for name, arm in ARMS.items():
            about: dict[str, str | int] = {"target": target, "seed": seed, "arm": name}
            trials.measure(about, trained(bench, arm, prior, relation, seed))
    typer.echo(f"Wrote {path}.")


def trained(bench: Bench, arm: Arm, prior: Prior, relation: Relation, seed: int) -> Callable[[], dict[str, object]]:
    """The training of one arm, to be run if need be."""

    def train() -> dict[str, object]:
        network = mixed(prior, arm, seed).to(device())
        if arm.transfer_share > 0:
            steps = round(arm.transfer_share * bench.scale.transfer_steps)
            bench.transfer(network, guided(relation, Guidance()), seed, steps=max(1, steps))
        return bench.finetune(network, arm.rate, seed, points=6) | {"rate": arm.rate}

    return train


@torch.no_grad()
def mixed(prior: Prior, arm: Arm, seed: int) -> SameSize:
    """θ = k·θ_prior + (1 − k)·θ_fresh, with fresh weights alone in the last layers."""
    network, fresh = build(BACKBONE, UNSHUFFLE, seed), build(BACKBONE, UNSHUFFLE, seed)
    assert prior.start(network, BACKBONE), "the shipped prior has weights for this network"
    for parameter, other in zip(network.parameters(), fresh.parameters(), strict=True):
        parameter.lerp_(other, 1 - arm.knowledge)
    if arm.fresh_layers:
        convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
        others = [module for module in fresh.modules() if isinstance(module, torch.nn.Conv2d)]
        for layer, other_layer in zip(convolutions[-arm.fresh_layers :], others[-arm.fresh_layers :], strict=True):
            layer.load_state_dict(other_layer.state_dict())
    return network


if __name__ == "__main__":
    typer.run(measure)

"""What limits on the norm of gradients do to long transfers at high rates.

`python -m benchmarks.gradient_limit` transfers a network, guided by what experts promise, without a limit (`inf`) and
with several, and fine-tunes it at the paper's rate. It records the largest gradient, how many of them were beyond
the limit, and what the network is worth before and after fine-tuning. Interrupted, it goes on where it was.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.devices import REPOSITORY, real_devices
from benchmarks.paper.materials import Materials
from benchmarks.paper.networks import fresh
from benchmarks.paper.scales import SCALES
from benchmarks.paper.schemes import training_of
from benchmarks.trials import Bench, Trials, one_thread, settings
from ml.backbones import BackboneName, SameSize
from ml.crew import ALONE
from ml.guidance import TaskMix
from ml.optimizer import LIMIT, adam, relative_norm
from ml.placement import at_hand
from ml.precision import device
from ml.prior import load_prior
from ml.transfer import TransferSchedule, transfer_gradient

QUICK: Final = SCALES["quick"]
FINETUNE_RATE: Final = 1e-4


def measure(
    backbone: Annotated[BackboneName, typer.Option(help="Deep ones are cut down.")] = "rcan",
    rate: Annotated[list[float] | None, typer.Option(help="Of the transfer: 5e-4. Give it once for each.")] = None,
    limit: Annotated[list[float] | None, typer.Option(help="`inf` is none: inf, 4. Give it once for each.")] = None,
    steps: Annotated[int, typer.Option(help="Of the transfer.")] = 2133,
    finetune_steps: Annotated[int, typer.Option(help="Of fine-tuning.")] = 160,
    seeds: Annotated[int, typer.Option(help="How many.")] = 1,
    target: Annotated[str, typer.Option(help="Name of the target.")] = "city100_nikon",
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    clean: Annotated[Path, typer.Option(help="Clean images.")] = REPOSITORY / "../shared/data/clean/cc0",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: in benchmarks/results.")] = None,
) -> None:
    """Train at every rate with every limit and every seed."""
    one_thread()
    rates, limits = rate or [5e-4], limit or [inf, LIMIT]
    each = [*(f"--rate {one:g}" for one in rates), *(f"--limit {one:g}" for one in limits)]
    command = (
        f"python -m benchmarks.gradient_limit --backbone {backbone} {' '.join(each)} --steps {steps} --seeds {seeds}"
    )
    extent = replace(QUICK.deep, transfer_steps=steps, finetune_steps=finetune_steps, seeds=seeds)
    path = output or REPOSITORY / f"benchmarks/results/gradient-limit-{backbone}.json"
    about: dict[str, Any] = {"backbone": backbone, "target": target}
    trials = Trials(path, settings("gradient_limit", command, "quick", shots, extent) | about)
    (found,) = (one for one in real_devices(targets, shots, extent.images) if one.name == target)
    materials = Materials(path.parent, QUICK, clean, load_prior(), lambda: None)
    for seed in range(seeds):
        bench = materials.bench(found, seed, shots, extent)
        trials.report["inputs"][target] = bench.input_psnr()
        relation = materials.relation(found, seed, shots)
        mix = training_of("drtl-pretrain", backbone, seed, relation, "transferability").mix
        assert mix is not None
        for transfer_rate in rates:
            for most in limits:
                trials.measure(
                    {"rate": f"{transfer_rate:g}", "limit": f"{most:g}", "seed": seed},
                    trained(bench, backbone, mix, transfer_rate, most, seed),
                )
    typer.echo(f"Wrote {path}.")


def trained(
    bench: Bench, backbone: BackboneName, mix: TaskMix, rate: float, limit: float, seed: int
) -> Callable[[], dict[str, Any]]:
    """One training, to be run if need be."""

    def train() -> dict[str, Any]:
        network = fresh(backbone, QUICK.unshuffle_of(backbone), seed, cut_down=True).to(device())
        norms = transferred(network, bench, mix, rate, limit, seed)
        before = bench.psnr(network)
        bench.tune(network, FINETUNE_RATE, seed, "paper")
        return {
            "largest": round(max(norms), 2),
            "beyond": sum(norm > limit for norm in norms),
            "transferred_psnr": before,
            "psnr": bench.psnr(network),
        }

    return train


def transferred(network: SameSize, bench: Bench, mix: TaskMix, rate: float, limit: float, seed: int) -> list[float]:
    """Transfer; returns each gradient's norm relative to those before, as it was before it was limited."""
    schedule = TransferSchedule(bench.scale.transfer_steps, bench.scale.batch, learning_rate=rate)
    optimizer, images = adam(network, rate, limit), at_hand(device(), bench.clean)
    norms: list[float] = []
    for step in range(schedule.steps):
        learning = (images, bench.tasks, mix.gamma, schedule, seed, step, mix.chances)
        if transfer_gradient(network, *learning, ALONE)[1]:
            norms.append(float(relative_norm(optimizer)))
            optimizer.step()
    return norms


if __name__ == "__main__":
    typer.run(measure)

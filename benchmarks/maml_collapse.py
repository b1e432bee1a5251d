"""Why a DnCNN collapses under MAML, as the paper's did: batch normalisation, the inner rate, or the order.

`python benchmarks/maml_collapse.py` meta-trains narrow networks on generated images, fine-tunes them on a few noisy
ones, and measures on unseen images with the same noise, before and after. One row for each network, order and rate.
"""

import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from torch import nn

from benchmarks.devices import REPOSITORY
from benchmarks.main_job import commit, machine
from benchmarks.trials import one_thread
from ml.auxiliary import auxiliary_batch
from ml.backbones import SameSize, dncnn, vdsr
from ml.backbones.layers import convolution, zero_convolution
from ml.chance import chance_of
from ml.dead_leaves import dead_leaves
from ml.distortions import PAPERS
from ml.distortions.noises import gaussian_noise
from ml.evaluate import mean, quality_of_input
from ml.finetune import FinetuneSchedule, finetune_step
from ml.images import from_uint8, to_uint8
from ml.meta import MetaSchedule, meta_loss, visited_tasks
from ml.metrics import psnr
from ml.optimizer import adam
from ml.pairs import TargetPair
from ml.sampling import generator_for
from ml.transfer import TransferSchedule

WIDTH: Final = 16
DEPTH: Final = 17
SIGMA: Final = 15


def published_dncnn(unshuffle: int) -> SameSize:
    """With batch normalisation, as published: the only place where this project has it."""
    channels = 3 * unshuffle**2
    layers: list[nn.Module] = [convolution(channels, WIDTH), nn.ReLU()]
    for _ in range(DEPTH - 2):
        layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    return SameSize(nn.Sequential(*layers, zero_convolution(WIDTH, channels)), unshuffle)


NETWORKS: Final[dict[str, Callable[[], SameSize]]] = {
    "DnCNN, published": lambda: published_dncnn(2),
    "DnCNN, merged": lambda: dncnn(2, depth=DEPTH, width=WIDTH),
    "VDSR": lambda: vdsr(2, depth=20, width=WIDTH),
}


def measure(
    steps: Annotated[int, typer.Option(help="Of meta-training.")] = 200,
    finetune_steps: int = 60,
    rates: Annotated[str, typer.Option(help="Inner rates, between commas.")] = "0,1e-3,1e-2,1e-1,1",
    orders: Annotated[str, typer.Option(help="first, second, or both between commas.")] = "first,second",
    networks: Annotated[str | None, typer.Option(help="Names, between semicolons; all by default.")] = None,
    output: Path = REPOSITORY / "benchmarks/results/maml-collapse.json",
) -> None:
    """Train every combination and write what was measured."""
    one_thread()
    rows = []
    images = [to_uint8(dead_leaves(112, generator_for(0, "leaves", index), leaves=200)) for index in range(12)]
    train, test = noisy(images[:6]), noisy(images[6:])
    for name in networks.split(";") if networks else NETWORKS:
        for order in orders.split(","):
            for rate in map(float, rates.split(",")):
                meta = MetaSchedule(inner_rate=rate, order="first" if order == "first" else "second")
                row = {"network": name, "order": order, "inner_rate": rate}
                rows.append(row | meta_trained(NETWORKS[name], images[:6], train, test, meta, steps, finetune_steps))
                typer.echo(json.dumps(rows[-1]))
    report: dict[str, Any] = {
        "benchmark": "maml_collapse",
        "command": f"python benchmarks/maml_collapse.py --steps {steps} --finetune-steps {finetune_steps}"
        f" --orders {orders} --rates {rates}" + (f' --networks "{networks}"' if networks else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "steps": steps,
        "finetune_steps": finetune_steps,
        "input_psnr": mean(quality_of_input(test)).psnr,
        "rows": rows,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")


def noisy(images: list[torch.Tensor]) -> list[TargetPair]:
    """A target: images with Gaussian noise of one strength."""
    return [
        TargetPair(
            str(index), image, to_uint8(gaussian_noise(image.float() / 255, SIGMA, generator_for(1, "target", index)))
        )
        for index, image in enumerate(images)
    ]


def meta_trained(
    make: Callable[[], SameSize],
    images: list[torch.Tensor],
    train: list[TargetPair],
    test: list[TargetPair],
    meta: MetaSchedule,
    steps: int,
    finetune_steps: int,
) -> dict[str, float]:
    """Algorithm 3 with γ ≡ 1, then fine-tuning. Without the check of `meta_step`, which refuses the published DnCNN."""
    torch.manual_seed(0)
    network = make()
    optimizer, tasks = adam(network, 1e-3), list(PAPERS)
    schedule = TransferSchedule(steps, batch=8, crop=32)
    queried = 0.0
    for step in range(steps):
        generator = generator_for(0, "maml", step)
        visited = visited_tasks(torch.ones(7), None, meta.tasks, generator)
        optimizer.zero_grad()
        for place, task in enumerate(visited):
            samples = range(schedule.batch // len(visited))
            chance = chance_of(0, f"maml/{step}/{place}", samples, torch.device("cpu"))
            batch = auxiliary_batch(images, [tasks[task]], schedule.crop, chance)
            loss = meta_loss(network, *batch.halves(), meta) / len(visited)
            loss.backward()
            queried += loss.item() / steps
        optimizer.step()
    before = quality(network, test)
    with torch.no_grad():  # As training saw it: normalised by the statistics of the batch at hand.
        network.train()
        seen = auxiliary_batch(images, tasks, 32, chance_of(2, "seen", range(16), torch.device("cpu")))
        by_batch = float((network(seen.distorted) - seen.clean).abs().mean())
        network.eval()
        by_kept = float((network(seen.distorted) - seen.clean).abs().mean())
        network.train()
    finetune = FinetuneSchedule(finetune_steps, batch=8, crop=32, learning_rate=1e-3, decay="cosine")
    optimizer = adam(network, finetune.learning_rate)
    for step in range(finetune_steps):
        finetune_step(network, optimizer, train, finetune, seed=0, step=step)
    return {
        "query_l1": queried,
        "l1_by_batch_statistics": by_batch,
        "l1_by_kept_statistics": by_kept,
        "meta_trained_psnr": before,
        "fine_tuned_psnr": quality(network, test),
    }


@torch.no_grad()
def quality(network: SameSize, pairs: list[TargetPair]) -> float:
    """Mean PSNR with the statistics that are kept for inference, of whole images."""
    network.eval()
    results = [(network(from_uint8(pair.distorted)[None])[0], from_uint8(pair.clean)) for pair in pairs]
    network.train()
    return statistics.fmean(psnr(result, clean) for result, clean in results)


if __name__ == "__main__":
    typer.run(measure)

"""What the spread over eight turned images says about the true error, and what their mean gains.

`python benchmarks/trust.py` fine-tunes the shipped prior for a short while on each real target and measures on unseen
images. It writes one JSON file with machine, commit and seed.
"""

import json
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.devices import REPOSITORY, middle, real_devices, short_model
from benchmarks.main_job import commit, machine
from ml.backbones import SameSize
from ml.ensemble import ensemble
from ml.images import from_uint8
from ml.metrics import psnr
from ml.pairs import TargetPair
from ml.prior import load_prior

PATCH = 16


def measure(
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    shots: int = 10,
    images: Annotated[int, typer.Option(help="Unseen images per target.")] = 6,
    side: Annotated[int, typer.Option(help="Of the middle of each image that is measured.")] = 192,
    steps: Annotated[int, typer.Option(help="Fine-tuning steps of the models.")] = 40,
    seed: int = 0,
    output: Path = REPOSITORY / "benchmarks/results/trust.json",
) -> None:
    """Compare spread with error per pixel and per patch, and the mean with the single result."""
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "benchmark": "trust",
        "command": "python benchmarks/trust.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "shots": shots,
        "images": images,
        "side": side,
        "finetune_steps": steps,
        "targets": {},
    }
    prior = load_prior()
    for device in real_devices(targets, shots, images):
        network = short_model(device, prior, steps, seed)
        rows = [measured(network, pair, side) for pair in device.test]
        report["targets"][device.name] = mean_of(rows)
        typer.echo(json.dumps({device.name: report["targets"][device.name]}, indent=1))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def measured(network: SameSize, pair: TargetPair, side: int) -> dict[str, float]:
    """One image. Beside the spread stands what anybody could guess without it: that busy places are restored worse."""
    distorted, clean = middle(from_uint8(pair.distorted), side)[None], middle(from_uint8(pair.clean), side)
    started = time.process_time()
    with torch.inference_mode():
        single = network(distorted)[0]
    once = time.process_time() - started
    started = time.process_time()
    eight = ensemble(network, distorted, network.unshuffle)
    eight_times = time.process_time() - started
    spread, error = eight.std[0, 0], (single.clamp(0, 1) - clean).abs().mean(dim=0)  # (h, w)
    busy = deviation(single)
    return {
        "input_psnr": psnr(distorted[0], clean),
        "single_psnr": psnr(single, clean),
        "ensemble_psnr": psnr(eight.mean[0], clean),
        "spearman_pixels": rank_correlation(spread, error),
        "spearman_patches": rank_correlation(patches(spread), patches(error)),
        "spearman_patches_of_texture": rank_correlation(patches(busy), patches(error)),
        "median_spread_levels": 255 * float(spread.median()),
        "p99_spread_levels": 255 * float(spread.flatten().quantile(0.99)),
        "cost_ratio": eight_times / once,
    }


def deviation(image: Tensor) -> Tensor:
    """Local standard deviation of the grey image in squares of 5×5."""
    grey = image.mean(dim=0)[None, None]
    average = F.avg_pool2d(grey, 5, 1, 2, count_include_pad=False)
    variance = F.avg_pool2d(grey.square(), 5, 1, 2, count_include_pad=False) - average.square()
    return variance.clamp_min(0).sqrt()[0, 0]


def patches(values: Tensor) -> Tensor:
    return F.avg_pool2d(values[None], PATCH)[0]


def rank_correlation(one: Tensor, other: Tensor) -> float:
    return float(spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic)


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    typer.run(measure)

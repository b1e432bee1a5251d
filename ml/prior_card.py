"""The card of a prior: what it was made from, and how well its networks restore what they have not seen."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ml.distortions import DISTORTIONS, distort
from ml.evaluate import mean, quality_of, quality_of_input
from ml.images import from_uint8, to_uint8
from ml.pairs import TargetPair
from ml.precision import device
from ml.prior import Prior, network_of
from ml.prior_images import GENERATED, Photograph, photographs_in
from ml.sampling import generator_for

MOST_MEASURED: Final = 12  # photographs
MEASURED_SIDE: Final = 256


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def made_from(photographs: Sequence[Photograph], licence: str, seed: int) -> dict[str, Any]:
    """What the card says of the images of one training, of their order, and of what computed it."""
    return {
        "photographs": len(photographs),
        "images": listed(photographs),
        "generated": GENERATED,
        "licence": licence,
        "seed": seed,
        "torch": torch.__version__,
    }


def listed(photographs: Sequence[Photograph]) -> list[dict[str, str]]:
    return [{"name": photograph.name, "sha256": photograph.sha256} for photograph in photographs]


def trainings(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the card says of the bundle's own training, and of all that was trained later."""
    return [card, *card.get("extensions", []), *card.get("pretraining", [])]


def names_all_images(card: Mapping[str, Any]) -> bool:
    """Whether photographs that took part in a training can be told: older cards say only how many there were."""
    return all("images" in training for training in trainings(card))


def unseen_photographs(folders: Sequence[Path], card: Mapping[str, Any], seed: int) -> list[Photograph]:
    """The middle of different photographs of the folders, of more than `MOST_MEASURED` as many drawn at random.

    Raises ValueError where one of the folders' took part in a training of the card, and as `photographs_in`.
    """
    middles = [each.middle(MEASURED_SIDE) for each in photographs_in(folders, MEASURED_SIDE)]
    seen = {image["sha256"] for training in trainings(card) for image in training.get("images", [])}
    if trained_on := [each.name for each in middles if each.sha256 in seen]:
        raise ValueError(f"the prior was trained on {', '.join(trained_on)}: measure it on other photographs")
    different = list({each.sha256: each for each in middles}.values())
    drawn = torch.randperm(len(different), generator=generator_for(seed, "measured", 0))[:MOST_MEASURED]
    return [different[index] for index in sorted(drawn.tolist())]


def metrics_of(prior: Prior, photographs: Sequence[Photograph], seed: int) -> dict[str, Any]:
    """For each network and each task of the card the mean PSNR in dB of distorted inputs, and of what becomes of them.

    Photographs are distorted in the same way for each network. Raises ValueError where the card names no tasks.
    """
    tasks = prior.card.get("tasks", [])
    if not tasks or set(tasks) - set(DISTORTIONS):
        raise ValueError(f"the card names as tasks {tasks!r}: there is nothing to measure")
    pairs = {task: _distorted(task, photographs, seed) for task in tasks}
    untouched = {task: mean(quality_of_input(pairs[task])).psnr for task in tasks}
    networks = {theta: network_of(theta, prior.thetas[theta]).to(device()) for theta in sorted(prior.thetas)}
    psnr_db: dict[str, dict[str, dict[str, float]]] = {theta: {} for theta in networks}
    for theta, task in track(list(product(networks, tasks)), "measuring", console=Console(stderr=True)):
        restored = mean(quality_of(networks[theta], pairs[task])).psnr
        psnr_db[theta][task] = {"input": round(untouched[task], 3), "restored": round(restored, 3)}
    return {
        "date": today(),
        "images": listed(photographs),
        "side": MEASURED_SIDE,
        "training_images_known": names_all_images(prior.card),
        "seed": seed,
        "torch": torch.__version__,
        "psnr_db": psnr_db,
    }


def _distorted(task: str, photographs: Sequence[Photograph], seed: int) -> list[TargetPair]:
    pairs = []
    for index, photograph in enumerate(photographs):
        chance = generator_for(seed, f"measured-{task}", index)
        distorted = distort(task, from_uint8(photograph.pixels), chance)
        pairs.append(TargetPair(photograph.name, photograph.pixels, to_uint8(distorted)))
    return pairs


def table_of(metrics: Mapping[str, Any]) -> Table:
    """PSNR in dB, a row for each network and task."""
    table = Table("network", "distortion", title=f"PSNR in dB, {len(metrics['images'])} photographs")
    for name in ("input", "restored", "gain"):
        table.add_column(name, justify="right")
    for theta, of_tasks in metrics["psnr_db"].items():
        for task, psnr in of_tasks.items():
            gain = psnr["restored"] - psnr["input"]
            table.add_row(theta, task, f"{psnr['input']:.2f}", f"{psnr['restored']:.2f}", f"{gain:+.2f}")
        table.add_section()
    return table

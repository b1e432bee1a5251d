"""Devices to measure with: real ones, and simulated ones that spoil photographs in one fixed way.

`python -m benchmarks.devices --output FOLDER` writes the simulated ones as folders of pairs, for `drtl bench paper
--targets`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from PIL import Image
from torch import Generator, Tensor

from app.virtual_camera import VirtualCamera
from drtl_client.pairs import pairs_in
from ml.backbones import SameSize, build
from ml.distortions import PAPERS, distort
from ml.distortions.blurs import gaussian_blur
from ml.distortions.mixtures import mixed_at
from ml.distortions.noises import gaussian_noise
from ml.finetune import FinetuneSchedule, finetune_step
from ml.images import decode, from_uint8, jpeg, to_uint8
from ml.optimizer import adam
from ml.pairs import PairFile, TargetPair, decode_pairs
from ml.prior import Prior
from ml.sampling import generator_for

REPOSITORY = Path(__file__).parents[1]
SIDE: Final = 512  # Photographs are cropped to their middle.


def virtual_camera(image: Tensor, generator: Generator) -> Tensor:
    """The demo's camera."""
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    taken = VirtualCamera().capture(to_uint8(image).permute(1, 2, 0).numpy(), rng)
    return from_uint8(torch.from_numpy(taken.copy()).permute(2, 0, 1))


SIMULATED: Final[dict[str, Callable[[Tensor, Generator], Tensor]]] = {
    "virtual camera": virtual_camera,
    "noise σ 15": lambda image, generator: gaussian_noise(image, 15, generator),
    "blur σ 2": lambda image, generator: gaussian_blur(image, 2),
    "JPEG 25": lambda image, generator: jpeg(image, 25),
    "mixture 2, 3, 4": lambda image, generator: mixed_at(image, (2, 3, 4), generator),
}


@dataclass(frozen=True)
class Device:
    """Few-shot pairs of a device, and pairs of scenes that none of them shows."""

    name: str
    train: list[TargetPair]
    test: list[TargetPair]


def real_devices(targets: Path, shots: int, most: int | None) -> list[Device]:
    """One device per folder with train/ and test/, each with clean/ and distorted/, pairs by name."""
    return [real_device(path, shots, most) for path in sorted(targets.resolve().iterdir()) if path.is_dir()]


def real_device(folder: Path, shots: int, most: int | None) -> Device:
    """The first pairs of train/ to learn from, and the first of test/ to measure on; None is all of them.

    Raises ValueError or BadFolder for pairs that a job would refuse.
    """
    return Device(folder.resolve().name, _pairs(folder / "train", shots), _pairs(folder / "test", most))


def simulated_devices(clean: Path, shots: int, most: int | None, seed: int) -> list[Device]:
    """Trained on photographs of clean/cc0, tested on those of clean/unsplash."""
    shown, unseen = photographs(clean / "cc0", 0, shots), photographs(clean / "unsplash", 0, most)
    return [
        Device(
            name,
            [_spoiled(name, f"train{index}", image, seed) for index, image in enumerate(shown)],
            [_spoiled(name, f"test{index}", image, seed) for index, image in enumerate(unseen)],
        )
        for name in SIMULATED
    ]


def known_distortions(clean: Path, most: int, seed: int) -> dict[str, list[TargetPair]]:
    """The auxiliary distortions, of random strength, on photographs that no simulated device saw."""
    images = photographs(clean / "unsplash", most, most)
    return {
        name: [
            TargetPair(f"{index}", image, to_uint8(distort(name, from_uint8(image), generator_for(seed, name, index))))
            for index, image in enumerate(images)
        ]
        for name in PAPERS
    }


def photographs(folder: Path, first: int, count: int | None) -> list[Tensor]:
    """Some clean photographs by name, or all from the first on, the middle 512×512 of each."""
    paths = sorted(folder.resolve().iterdir())[first:][:count]
    return [middle(to_uint8(decode(path.read_bytes()).pixels), SIDE) for path in paths]


def middle(image: Tensor, side: int) -> Tensor:
    """The middle square of an image, or all of it along a side that is shorter."""
    height, width = image.shape[1:]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return image[:, top : top + side, left : left + side]


def short_model(device: Device, prior: Prior, steps: int, seed: int) -> SameSize:
    """The shipped prior, fine-tuned for a short while."""
    network = build("vdsr", 2, seed)
    prior.start(network, "vdsr")
    schedule = FinetuneSchedule(steps=steps, batch=4, crop=64, learning_rate=5e-4, decay="cosine")
    optimizer = adam(network, schedule.learning_rate)
    for step in range(steps):
        finetune_step(network, optimizer, device.train, schedule, seed, step)
    return network.eval()


def _spoiled(name: str, stage: str, image: Tensor, seed: int) -> TargetPair:
    spoiled = SIMULATED[name](from_uint8(image), generator_for(seed, f"{name}/{stage}", 0))
    return TargetPair(stage, image, to_uint8(spoiled))


def _pairs(folder: Path, most: int | None) -> list[TargetPair]:
    """The first pairs by name, as a job decodes them: small distorted images enlarged, what nobody sees left out.

    All are measured in colour, grey ones too. Raises ValueError for what a job refuses.
    """
    paths = pairs_in(folder)[:most]
    files = [PairFile(pair.name, pair.clean.read_bytes(), pair.distorted.read_bytes()) for pair in paths]
    return [replace(pair, grey=False) for pair in decode_pairs(files)[0]]


def write(
    output: Annotated[Path, typer.Option(help="The folder; each device becomes one in it.")],
    clean: Annotated[Path, typer.Option(help="Holds cc0/ and unsplash/.")] = REPOSITORY / "../shared/data/clean",
    only: Annotated[list[str] | None, typer.Option(help="Names of devices; all by default.")] = None,
    shots: int = 10,
    most: int = 6,
    seed: int = 0,
) -> None:
    """Write train/ and test/, each with clean/ and distorted/, of every simulated device."""
    for simulated in simulated_devices(clean, shots, most, seed):
        if only and simulated.name not in only:
            continue
        for part, pairs in (("train", simulated.train), ("test", simulated.test)):
            for pair in pairs:
                for side, pixels in (("clean", pair.clean), ("distorted", pair.distorted)):
                    file = output / simulated.name / part / side / f"{pair.name}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file)
        typer.echo(f"Wrote {output / simulated.name}.")


if __name__ == "__main__":
    typer.run(write)

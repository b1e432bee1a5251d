"""Samples of the auxiliary tasks: crops of clean images, each distorted by a task's distortion.

Crops, augmentation and distortions are made where `chance` says, a batch at a time, from images that lie there or are
brought there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ml.chance import Chance
from ml.distortions import distort_each
from ml.images import from_uint8
from ml.sampling import dihedral

MARGIN = 16  # Pixels distorted around a training crop and cut away, so that no distortion meets the crop's border.


@dataclass(frozen=True)
class AuxiliaryBatch:
    """Samples of the auxiliary tasks; `task` says which of the K tasks each belongs to, and stays on the CPU."""

    clean: Float[Tensor, "b 3 h w"]
    distorted: Float[Tensor, "b 3 h w"]
    task: Int64[Tensor, "b"]

    def halves(self) -> tuple["AuxiliaryBatch", "AuxiliaryBatch"]:
        """The first and the second half of an even number of samples."""
        one, other = zip(*(part.chunk(2) for part in (self.clean, self.distorted, self.task)), strict=True)
        return AuxiliaryBatch(*one), AuxiliaryBatch(*other)


def auxiliary_batch(
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    side: int,
    chance: Chance,
    chances: Float[Tensor, "k"] | None = None,
) -> AuxiliaryBatch:
    """Draw crops of clean images and distort each by a task, augmented by the dihedral group.

    Tasks are drawn with the given chances, or uniformly.
    """
    task = chance.pick([len(tasks)] * chance.size) if chances is None else chance.draw(chances)
    pairs = distorted_crops(clean_images, [tasks[index] for index in task], side, chance, tries=2)
    return AuxiliaryBatch(pairs[0], pairs[1], torch.tensor(task))


def distorted_crops(
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]], names: Sequence[str], side: int, chance: Chance, tries: int
) -> Float[Tensor, "2 b 3 {side} {side}"]:
    """A crop for each of the named distortions, clean and distorted, the most textured of so many tries."""
    sources = [clean_images[index] for index in chance.pick([len(clean_images)] * chance.size)]
    images = from_uint8(textured_crops(sources, side + 2 * MARGIN, chance, tries))
    pairs = torch.stack([images, distort_each(names, images, chance)])  # (2, b, 3, h, w)
    inner = pairs[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    return dihedral(inner, chance.pick([4] * chance.size), chance.pick([2] * chance.size))


def textured_crops(
    images: Sequence[UInt8[Tensor, "3 _ _"]], side: int, chance: Chance, tries: int
) -> UInt8[Tensor, "b 3 {side} {side}"]:
    """A random square of each image: of several the one that varies most, as flat ground shows little of a distortion.

    Raises ValueError for an image that is smaller.
    """
    if any(min(image.shape[1:]) < side for image in images):
        raise ValueError(f"images: one is smaller than a crop of {side}×{side}")
    drawn = torch.stack([torch.stack(crops(images, side, chance)) for _ in range(tries)])
    candidates = drawn.to(chance.device, non_blocking=True)
    values = candidates.flatten(2).float()  # (tries, b, n)
    # As much as their standard deviation, which `Tensor.std` takes six times as long for.
    spread = torch.linalg.vector_norm(values - values.mean(dim=2, keepdim=True), dim=2)
    best = spread.argmax(dim=0)  # (b)
    return candidates[best, torch.arange(len(images), device=best.device)]


def crops(images: Sequence[UInt8[Tensor, "3 _ _"]], side: int, chance: Chance) -> list[UInt8[Tensor, "3 _ _"]]:
    """A random square of each image."""
    top = chance.pick([image.shape[1] - side + 1 for image in images])
    left = chance.pick([image.shape[2] - side + 1 for image in images])
    return [image[:, y : y + side, x : x + side] for image, y, x in zip(images, top, left, strict=True)]

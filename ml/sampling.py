"""Training patches: crops, flips and quarter turns, drawn from a generator that depends on seed, stage and step only.

Because nothing is carried from step to step, training that resumes at step n draws what an uninterrupted run draws.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Generator, Tensor


def generator_for(seed: int, stage: str, step: int) -> Generator:
    """The random numbers of one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def pick(count: int, generator: Generator) -> int:
    """A whole number in 0…count − 1."""
    return int(torch.randint(count, (), generator=generator))


def crop(images: Sequence[Shaped[Tensor, "3 h w"]], side: int, generator: Generator) -> list[Tensor]:
    """The same random square of equally large images; where an image is smaller, all of that side is taken."""
    height, width = images[0].shape[1:]
    y, x = pick(max(1, height - side + 1), generator), pick(max(1, width - side + 1), generator)
    return [image[:, y : y + side, x : x + side] for image in images]


def textured_crop(
    images: Sequence[Shaped[Tensor, "3 h w"]],
    side: int,
    generator: Generator,
    tries: int = 4,
) -> list[Tensor]:
    """Of several random squares the one whose first image varies most: flat ground shows little of a distortion."""
    candidates = [crop(images, side, generator) for _ in range(tries)]
    return max(candidates, key=lambda squares: float(squares[0].float().std()))


def dihedral(
    images: Shaped[Tensor, "n b 3 s s"], turns: Sequence[int], flips: Sequence[int]
) -> Shaped[Tensor, "n b 3 s s"]:
    """Square images turned by so many quarters, then mirrored or not, as is said for each place in the batch."""

    def of_each(choices: Sequence[bool]) -> Tensor:
        return torch.tensor(choices).to(images.device, non_blocking=True)[:, None, None, None]  # (b, 1, 1, 1)

    images = torch.where(of_each([turn >= 2 for turn in turns]), images.flip(3, 4), images)
    images = torch.where(of_each([turn % 2 == 1 for turn in turns]), images.rot90(1, dims=(3, 4)), images)
    return torch.where(of_each([flip == 1 for flip in flips]), images.flip(4), images)

"""Training patches: crops, flips and quarter turns, drawn from a generator that depends on seed, stage and step only.

Because nothing is carried from step to step, training that resumes at step n draws what an uninterrupted run draws.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor


def generator_for(seed: int, stage: str, step: int) -> Generator:
    """The random numbers of one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def pick(count: int, generator: Generator) -> int:
    """A whole number in 0…count − 1."""
    return int(torch.randint(count, (), generator=generator))


def draw(chances: Float[Tensor, "k"], generator: Generator) -> int:
    """An index, drawn in proportion to its chance."""
    return int(torch.multinomial(chances.cpu(), 1, generator=generator))


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


def dihedral(images: Shaped[Tensor, "n 3 h w"], generator: Generator) -> Shaped[Tensor, "n 3 h2 w2"]:
    """All images turned by the same random one of the square's eight symmetries."""
    turned = torch.rot90(images, pick(4, generator), dims=(2, 3))
    return turned.flip(3) if pick(2, generator) else turned

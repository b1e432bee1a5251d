"""What a known distortion is: a strength between nothing and the most that it does, and a name in plain words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor

LEAST_STRENGTH: Final = 1e-4  # Less is far below a grey level, and as good as nothing where a formula divides by it.

Image = Float[Tensor, "*b 3 h w"]
Distort = Callable[[Image, float, Generator], Image]


@dataclass(frozen=True)
class Distortion:
    """A known distortion: what it does, and how a person would call it.

    `at(image, strength, generator)` does it at a strength from 0, which leaves the image as it is, to 1; images of a
    batch get the same strength and independent noise. Values may leave [0, 1], where a file would clip them. `apply`
    draws the strength uniformly from `weakest` to `strongest`.
    """

    at: Distort
    words: str
    weakest: float = 0.0
    strongest: float = 1.0

    def apply(self, image: Image, generator: Generator) -> Image:
        strength = self.strongest
        if self.weakest < self.strongest:
            strength = uniform(self.weakest, self.strongest, generator)
        return self.at(image, strength, generator)


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()

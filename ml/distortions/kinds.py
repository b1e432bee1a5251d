"""What a known distortion is: a strength between nothing and the most that it does, and a name in plain words.

Where a function takes an `Amount`, it is one for all images, or one for each of a batch; where it takes a `Source`,
that is a generator for all images or what draws for each of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.chance import Amount, Source, uniform
from ml.placement import by_value, like, places

LEAST_STRENGTH: Final = 1e-4  # Less is far below a grey level, and as good as nothing where a formula divides by it.

Image = Float[Tensor, "*b 3 h w"]
Distort = Callable[[Image, Amount, Source], Image]


@dataclass(frozen=True)
class Distortion:
    """A known distortion: what it does, and how a person would call it.

    `does` is called with an image, a strength and a source of random numbers; strengths are above `LEAST_STRENGTH`.
    """

    does: Distort
    words: str
    weakest: float = 0.0
    strongest: float = 1.0

    def at(self, image: Image, strength: Amount, source: Source) -> Image:
        """Do it at a strength from 0, which leaves the image as it is, to 1; noise is independent for each image.

        Values may leave [0, 1], where a file would clip them.
        """
        if isinstance(strength, Tensor):
            return self.does(image, strength.clamp_min(2 * LEAST_STRENGTH), source)
        return self.does(image, strength, source) if strength > LEAST_STRENGTH else image

    def apply(self, image: Image, source: Source) -> Image:
        """Do it at a strength drawn uniformly from `weakest` to `strongest`."""
        strength: Amount = self.strongest
        if self.weakest < self.strongest:
            strength = uniform(self.weakest, self.strongest, source)
        return self.at(image, strength, source)


def beside(amount: Amount, image: Image) -> float | Float[Tensor, "b 1 1 1"]:
    """An amount as a factor of an image, or of the images of a batch."""
    return like(image, amount)[:, None, None, None] if isinstance(amount, Tensor) else amount


def by_amount(function: Callable[[Image, float], Image], image: Image, amount: Amount) -> Image:
    """For what takes one number: images of a batch with the same amount together."""
    if not isinstance(amount, Tensor):
        return function(image, amount)
    result = torch.empty_like(image)
    values: list[float] = amount.tolist()
    for value, own in by_value(values):
        at = places(own, image)
        result[at] = function(image[at], value)
    return result


def padded_together(kernels: list[Float[Tensor, "_ _"]]) -> Float[Tensor, "b k k"]:
    """Square kernels of odd sides in the middle of squares of one size, the rest zero."""
    largest = max(len(kernel) for kernel in kernels)
    margins = [(largest - len(kernel)) // 2 for kernel in kernels]
    return torch.stack([F.pad(kernel, (m, m, m, m)) for kernel, m in zip(kernels, margins, strict=True)])


def kernel_for(make: Callable[..., Float[Tensor, "_ _"]], *amounts: Amount) -> Float[Tensor, "*b k k"]:
    """A kernel by these amounts, or one for each image of a batch."""
    if not any(isinstance(amount, Tensor) for amount in amounts):
        return make(*amounts)
    each = torch.broadcast_tensors(*(torch.as_tensor(amount, dtype=torch.float64) for amount in amounts))
    return padded_together([make(*values) for values in zip(*(amount.tolist() for amount in each), strict=True)])

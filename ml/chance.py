"""Random numbers of a batch, of which each sample gets its own.

On the CPU every sample has a generator, so that it is the same whoever draws the others. On an accelerator one
generator there makes the noise of all of them, and one beside it the few numbers that decide what is to be done: a
number that were drawn on the accelerator would have to be waited for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml.sampling import generator_for, pick

Amount = float | Float[Tensor, "b"]  # One for all images, or one for each; the latter on the CPU, in double precision.


@runtime_checkable  # Tests check argument types while they run.
class Chance(Protocol):
    """Where the numbers come from. Every method draws once for each sample."""

    @property
    def size(self) -> int:
        """How many samples."""

    @property
    def device(self) -> torch.device:
        """Where noise is made."""

    def uniform(self, low: float, high: float) -> Float[Tensor, "b"]:
        """Numbers in [low, high), on the CPU in double precision."""

    def pick(self, counts: Sequence[int]) -> list[int]:
        """Whole numbers from 0 to each sample's own count − 1."""

    def draw(self, chances: Float[Tensor, "k"]) -> list[int]:
        """Indices, drawn in proportion to their chances."""

    def normal(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Independent values of the standard normal distribution, for images of this size."""

    def poisson(self, expected: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Counts, by how many are expected."""

    def among(self, samples: Sequence[int]) -> "Chance":
        """The numbers of some of the samples."""


@dataclass(frozen=True)
class EachItsOwn:
    """A generator for each sample, on the CPU."""

    generators: Sequence[Generator]

    @property
    def size(self) -> int:
        return len(self.generators)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def uniform(self, low: float, high: float) -> Float[Tensor, "b"]:
        drawn = [torch.rand((), generator=generator).item() for generator in self.generators]
        return low + (high - low) * torch.tensor(drawn, dtype=torch.float64)

    def pick(self, counts: Sequence[int]) -> list[int]:
        pairs = zip(counts, self.generators, strict=True)
        return [int(torch.randint(count, (), generator=generator)) for count, generator in pairs]

    def draw(self, chances: Float[Tensor, "k"]) -> list[int]:
        return [int(torch.multinomial(chances, 1, generator=generator)) for generator in self.generators]

    def normal(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return torch.stack([torch.randn(images.shape[1:], generator=generator) for generator in self.generators])

    def poisson(self, expected: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        pairs = zip(expected, self.generators, strict=True)
        return torch.stack([torch.poisson(each, generator=generator) for each, generator in pairs])

    def among(self, samples: Sequence[int]) -> "EachItsOwn":
        return EachItsOwn([self.generators[sample] for sample in samples])


@dataclass(frozen=True)
class Together:
    """One generator for what is decided, on the CPU, and one for noise, on the device where images are."""

    size: int
    deciding: Generator
    noise: Generator

    @property
    def device(self) -> torch.device:
        return self.noise.device

    def uniform(self, low: float, high: float) -> Float[Tensor, "b"]:
        return low + (high - low) * torch.rand(self.size, generator=self.deciding, dtype=torch.float64)

    def pick(self, counts: Sequence[int]) -> list[int]:
        return (self.uniform(0, 1) * torch.tensor(counts)).long().tolist()

    def draw(self, chances: Float[Tensor, "k"]) -> list[int]:
        return torch.multinomial(chances, self.size, replacement=True, generator=self.deciding).tolist()

    def normal(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return torch.randn(images.shape, generator=self.noise, device=self.device)

    def poisson(self, expected: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return torch.poisson(expected, generator=self.noise)

    def among(self, samples: Sequence[int]) -> "Together":
        return replace(self, size=len(samples))


def chance_of(seed: int, stage: str, samples: range, device: torch.device) -> Chance:
    """The random numbers of some samples of one stage's step, drawn as suits the device.

    On an accelerator they depend on which samples are drawn together, as on how many devices share a batch.
    """
    if device.type == "cpu":
        return EachItsOwn([generator_for(seed, stage, sample) for sample in samples])
    deciding = generator_for(seed, f"{stage}/every {samples.step}", samples.start)
    return Together(len(samples), deciding, generator_on(device, pick(2**62, deciding)))


def generator_on(device: torch.device, seed: int) -> Generator:
    return Generator(device).manual_seed(seed)


Source = Generator | Chance  # A generator draws one number for all images of a batch, and noise for each.


def uniform(low: float, high: float, source: Source) -> Amount:
    if isinstance(source, Generator):
        return low + (high - low) * torch.rand((), generator=source).item()
    return source.uniform(low, high)


def one_of(table: Float[Tensor, "n c"], source: Source) -> list[Amount]:
    """A row of the table at random, by columns."""
    if isinstance(source, Generator):
        return table[pick(len(table), source)].tolist()
    return list(table[source.pick([len(table)] * source.size)].unbind(dim=1))


def normal(images: Float[Tensor, "*b 3 h w"], source: Source) -> Float[Tensor, "*b 3 h w"]:
    if isinstance(source, Generator):
        return torch.randn(images.shape, generator=source).to(images.device)
    return source.normal(images)


def poisson(expected: Float[Tensor, "*b 3 h w"], source: Source) -> Float[Tensor, "*b 3 h w"]:
    if isinstance(source, Generator):
        return torch.poisson(expected.cpu(), generator=source).to(expected.device)
    return source.poisson(expected)

"""The last layer of a network, fitted to pairs in closed form on the features that the layers before it compute.

A ridge regression that is held near what the layer was (linear probing, Alain & Bengio, arXiv:1610.01644). It asks what
a network's features are worth for a target, and is where fine-tuning may begin: features that are to be kept are not
spoiled by a last layer that is far off (Kumar et al., "Fine-tuning can distort pretrained features and underperform
out-of-distribution", ICLR 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn

from ml.backbones import SameSize
from ml.images import from_uint8
from ml.pairs import TargetPair
from ml.precision import autocast
from ml.sampling import crop, generator_for, pick

CROPS_PER_PAIR: Final = 6
MORE_CROPS_PER_PAIR: Final = 16  # After fine-tuning, where what is fitted is not trained away again,
MORE_CROPS: Final = 160  # but no more in all than these, unless there are so many pairs.
CROP: Final = 64
RIDGES: Final = (1.0, 0.1, 0.01, 0.001)  # Of each feature's power; `fit_last_layer` takes the one that suits.
ROUNDING: Final = (1 / 255) ** 2 / 12  # Mean square of what rounding to 8 bits leaves: no read-out gains below it.


@dataclass(frozen=True)
class Moments:
    """All that a least-squares fit needs to know of some positions: f features, c channels to predict from them."""

    gram: Float[Tensor, "f f"]
    cross: Float[Tensor, "f c"]
    energy: Float[Tensor, ""]
    values: int  # How many values the energy is summed over.

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.energy + other.energy,
            self.values + other.values,
        )

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(
            self.gram - other.gram,
            self.cross - other.cross,
            self.energy - other.energy,
            self.values - other.values,
        )

    def read_out(self, before: Float[Tensor, "f c"], ridge: float) -> Float[Tensor, "f c"]:
        """The ridge regression: a change from what was before is penalised in proportion to each feature's power."""
        penalty = ridge * self.gram.diagonal() + 1e-9
        change: Tensor = torch.linalg.solve(self.gram + penalty.diag(), self.cross - self.gram @ before)
        return before + change

    def gain_db(self, read_out: Float[Tensor, "f c"]) -> Float[Tensor, ""]:
        """By how many dB a read-out brings what it predicts nearer here; below zero where it does harm."""
        left = self.energy - 2 * (read_out * self.cross).sum() + (read_out * (self.gram @ read_out)).sum()
        rounding = ROUNDING * self.values
        return 10 * ((self.energy + rounding) / (left.clamp_min(0) + rounding)).log10()


def crops_of_a_refit(pairs: int) -> int:
    """How many crops of each pair a fit after fine-tuning sees: many of few pairs, as many as any fit of many."""
    return max(CROPS_PER_PAIR, min(MORE_CROPS_PER_PAIR, MORE_CROPS // pairs))


def last_layer(network: SameSize) -> nn.Conv2d:
    """The 3×3 convolution with a bias by which every backbone ends."""
    *_, last = (layer for layer in network.body.modules() if isinstance(layer, nn.Conv2d))
    assert last.kernel_size == (3, 3)
    return last


def own_read_out(network: SameSize) -> Float[Tensor, "f c"]:
    """The last layer as a matrix, its bias last."""
    last = last_layer(network)
    assert last.bias is not None
    return torch.cat([last.weight.flatten(1), last.bias[:, None]], dim=1).T.detach().double()


@torch.no_grad()
def moments_of_pairs(
    network: SameSize,
    pairs: Sequence[TargetPair],
    seed: int,
    tick: Callable[[], None] = lambda: None,
    crops: int = CROPS_PER_PAIR,
) -> list[Moments]:
    """Of random crops of each pair, the same whatever the order of the pairs; of a single pair, of each of its tiles.

    So each can be left out in turn, and none has seen another's pixels. Calls `tick` before each pair.
    """
    at = next(network.parameters()).device
    folds = []
    for pair in pairs:
        tick()
        generator, images = generator_for(seed, f"transferability/{pair.name}", 0), [pair.clean, pair.distorted]
        if len(pairs) == 1:
            drawn = [torch.stack(tile)[:, None] for tile in disjoint_tiles(images, crops, generator)]
        else:
            drawn = [torch.stack([torch.stack(crop(images, CROP, generator)) for _ in range(crops)], dim=1)]
        folds += [moments(network, *from_uint8(both).to(at)) for both in drawn]  # (2, n, 3, h, w)
    return folds


def disjoint_tiles(
    images: Sequence[UInt8[Tensor, "3 h w"]], most: int, generator: Generator
) -> list[list[UInt8[Tensor, "3 h2 w2"]]]:
    """Up to `most` squares of equally large images that share no pixel, of half the side where one alone would fit.

    The whole images where not even two of those do: then nothing can be left out.
    """
    height, width = images[0].shape[1:]
    for side in (CROP, CROP // 2):
        rows, columns = height // side, width // side
        if rows * columns > 1:
            top, left = pick(height - rows * side + 1, generator), pick(width - columns * side + 1, generator)
            places = torch.randperm(rows * columns, generator=generator)[:most].tolist()
            corners = [(top + place // columns * side, left + place % columns * side) for place in places]
            return [[image[:, y : y + side, x : x + side] for image in images] for y, x in corners]
    return [list(images)]


def moments(network: SameSize, clean: Float[Tensor, "n 3 h w"], distorted: Float[Tensor, "n 3 h w"]) -> Moments:
    """Of some crops: what the last layer sees at each position, and a one for the bias, against what lacks of clean.

    Features are computed in the precision of whoever calls, products in single and their sums over pairs in double.
    """
    seen = features(network, distorted).float()  # (n, width, h / r, w / r)
    windows = F.unfold(seen, 3, padding=1).transpose(0, 1).flatten(1)  # (f - 1, n m)
    known = torch.cat([windows, torch.ones_like(windows[:1])])  # (f, n m)
    missing = network.cells(clean - distorted).flatten(2).transpose(0, 1).flatten(1)  # (c, n m)
    with torch.autocast(known.device.type, enabled=False):
        gram, cross, energy = known @ known.T, known @ missing.T, missing.square().sum()
    return Moments(gram.double(), cross.double(), energy.double(), missing.numel())


def features(network: SameSize, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n width h2 w2"]:
    """What the last layer is given."""
    given: list[Tensor] = []
    hook = last_layer(network).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        network.body(network.cells(image))
    finally:
        hook.remove()
    return given[0]


def gains_left_out(folds: Sequence[Moments], own: Float[Tensor, "f c"], ridge: float | None) -> Float[Tensor, "folds"]:
    """What each fold gains in dB by the read-out that the others give; None leaves the layer as it is."""
    whole = sum(folds[1:], folds[0])
    return torch.stack([fold.gain_db(own if ridge is None else (whole - fold).read_out(own, ridge)) for fold in folds])


@torch.no_grad()
def fit_last_layer(
    network: SameSize,
    pairs: Sequence[TargetPair],
    seed: int,
    tick: Callable[[], None] = lambda: None,
    crops: int = CROPS_PER_PAIR,
) -> None:
    """Give the network the last layer that suits the pairs, by the ridge of `RIDGES` that does best on a pair left out.

    The layer stays as it was where none does better than it, or nothing can be left out. Features are computed as in
    training. Calls `tick` before each pair.
    """
    with autocast(next(network.parameters()).device):
        folds = moments_of_pairs(network, pairs, seed, tick, crops)
    own = own_read_out(network)
    gains = {ridge: float(gains_left_out(folds, own, ridge).mean()) for ridge in (None, *RIDGES)}
    best = max(gains, key=lambda ridge: gains[ridge])
    if best is not None:
        last, fitted = last_layer(network), sum(folds[1:], folds[0]).read_out(own, best).T  # (c, f)
        assert last.bias is not None
        last.weight.copy_(fitted[:, :-1].reshape(last.weight.shape))
        last.bias.copy_(fitted[:, -1])

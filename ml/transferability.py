"""How much learning an auxiliary task helps a target: what a linear read-out of that task's expert gains on the pairs.

γ of the graph says what a distortion looks like. What its practice is worth is another question: a task may look
unlike the target and still teach the features that the target wants, and γ does not tell which do (docs/results.md).
So every task has an *expert*, a network that was trained on it alone, as a transfer from this task would. All that it
computes but its last layer stays as it is; the last layer is fitted anew to the target's pairs in closed form, held
near what it was, and measured on the pair that was left out. That is transfer and fine-tuning in miniature (linear
probing, Alain & Bengio, arXiv:1610.01644; as an estimate of transferability: LogME, You et al., ICML 2021).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.backbones import SameSize, build
from ml.images import from_uint8
from ml.pairs import TargetPair
from ml.precision import device
from ml.relation import Relation
from ml.sampling import crop, generator_for

BACKBONE: Final = "vdsr"
UNSHUFFLE: Final = 4
CROPS_PER_PAIR: Final = 6
CROP: Final = 64
# Of each feature's power. So strong a ridge leaves the last layer about where few steps of fine-tuning would bring it;
# weaker ones predicted transfer less well (docs/adr/0032).
RIDGE: Final = 1.0
ROUNDING: Final = (1 / 255) ** 2 / 12  # Mean square of what rounding to 8 bits leaves: no read-out gains below it.


def fresh_expert(seed: int) -> SameSize:
    """An expert before it has learnt its task: the default backbone at a quarter of the resolution."""
    return build(BACKBONE, UNSHUFFLE, seed)


def assessed(
    relation: Relation,
    experts: Mapping[str, SameSize],
    pairs: Sequence[TargetPair],
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> Relation:
    """The relation with the gain of every task's read-out on every pair.

    As it was where a task has no expert, since tasks with and without one cannot be compared. Calls `tick` before
    each expert and pair.
    """
    names = relation.prototypes.names
    if any(name not in experts for name in names):
        return relation
    gains = [read_out_gain(experts[name], pairs, seed, tick) for name in names]
    return replace(relation, gain_db_of_pair=torch.stack(gains, dim=1))


@torch.no_grad()
def read_out_gain(
    expert: SameSize, pairs: Sequence[TargetPair], seed: int, tick: Callable[[], None] = lambda: None
) -> Float[Tensor, "p"]:
    """PSNR in dB that a read-out of the expert's features gains over the input, for each pair by the other pairs.

    The read-out is a 3×3 convolution with a bias in place of the expert's own, fitted by ridge regression to the
    difference of clean and distorted; of a single pair each crop is left out in turn.
    """
    expert = expert.to(device())
    folds = []
    for pair in pairs:
        tick()
        generator = generator_for(seed, f"transferability/{pair.name}", 0)  # Whatever the order of the pairs.
        drawn = [torch.stack(crop([pair.clean, pair.distorted], CROP, generator)) for _ in range(CROPS_PER_PAIR)]
        clean, distorted = from_uint8(torch.stack(drawn, dim=1)).to(device())  # (n, 3, h, w) each
        size = len(clean) if len(pairs) > 1 else 1
        folds += [moments(expert, *part) for part in zip(clean.split(size), distorted.split(size), strict=True)]
    whole = sum(folds[1:], folds[0])
    own = own_read_out(expert)
    gains = torch.stack([fold.gain_db((whole - fold).read_out(own)) for fold in folds]).cpu()  # (folds,)
    return gains if len(pairs) > 1 else gains.mean()[None]


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

    def read_out(self, before: Float[Tensor, "f c"]) -> Float[Tensor, "f c"]:
        """The ridge regression: a change from what was before is penalised in proportion to each feature's power."""
        penalty = RIDGE * self.gram.diagonal() + 1e-9
        change: Tensor = torch.linalg.solve(self.gram + penalty.diag(), self.cross - self.gram @ before)
        return before + change

    def gain_db(self, read_out: Float[Tensor, "f c"]) -> Float[Tensor, ""]:
        """By how many dB a read-out brings what it predicts nearer here; below zero where it does harm."""
        left = self.energy - 2 * (read_out * self.cross).sum() + (read_out * (self.gram @ read_out)).sum()
        rounding = ROUNDING * self.values
        return 10 * ((self.energy + rounding) / (left.clamp_min(0) + rounding)).log10()


def moments(expert: SameSize, clean: Float[Tensor, "n 3 h w"], distorted: Float[Tensor, "n 3 h w"]) -> Moments:
    """Of some crops: an expert's features under a 3×3 window, and a one for the bias, against what lacks of clean."""
    assert isinstance(expert.body, nn.Sequential)
    seen = expert.body[:-1](expert.cells(distorted))  # (n, width, h / r, w / r)
    windows = F.unfold(seen, 3, padding=1).transpose(0, 1).flatten(1)  # (f - 1, n m)
    features = torch.cat([windows, torch.ones_like(windows[:1])])  # (f, n m)
    missing = expert.cells(clean - distorted).flatten(2).transpose(0, 1).flatten(1)  # (c, n m)
    # Products in single precision, sums over pairs in double.
    gram, cross, energy = features @ features.T, features @ missing.T, missing.square().sum()
    return Moments(gram.double(), cross.double(), energy.double(), missing.numel())


def own_read_out(expert: SameSize) -> Float[Tensor, "f c"]:
    """The expert's last layer as a matrix, its bias last."""
    assert isinstance(expert.body, nn.Sequential)
    last = expert.body[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    return torch.cat([last.weight.flatten(1), last.bias[:, None]], dim=1).T.double()

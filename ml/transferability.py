"""How much learning an auxiliary task helps a target: what a linear read-out of that task's expert gains on the pairs.

γ of the graph says what a distortion looks like. What its practice is worth is another question: a task may look
unlike the target and still teach the features that the target wants, and γ does not tell which do (docs/results.md).
So every task has an *expert*, a network that was trained on it alone, as a transfer from this task would. All that it
computes but its last layer stays as it is; the last layer is fitted anew to the target's pairs (`ml/read_out.py`), held
near what it was, and measured on the pair that was left out. That is transfer and fine-tuning in miniature (as an
estimate of transferability: LogME, You et al., ICML 2021).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ml.backbones import SameSize, build
from ml.pairs import TargetPair
from ml.precision import device
from ml.read_out import gains_left_out, moments_of_pairs, own_read_out
from ml.relation import Relation

BACKBONE: Final = "vdsr"
UNSHUFFLE: Final = 4
# Of each feature's power. So strong a ridge leaves the last layer about where few steps of fine-tuning would bring it;
# weaker ones predicted transfer less well (docs/adr/0032).
RIDGE: Final = 1.0


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


def read_out_gain(
    expert: SameSize, pairs: Sequence[TargetPair], seed: int, tick: Callable[[], None] = lambda: None
) -> Float[Tensor, "p"]:
    """PSNR in dB that a read-out of the expert's features gains over the input, for each pair by the other pairs.

    Of a single pair each tile is left out in turn, and their mean counts; of one too small for that, no read-out is
    fitted, and what the expert itself gains counts.
    """
    expert = expert.to(device())
    folds = moments_of_pairs(expert, pairs, seed, tick)
    gains = gains_left_out(folds, own_read_out(expert), RIDGE).cpu()  # (folds,)
    return gains if len(pairs) > 1 else gains.mean()[None]

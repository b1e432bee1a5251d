"""The backbones at their papers' sizes, or the deep ones cut down to what a CPU trains in minutes."""

from collections.abc import Callable
from functools import cache
from typing import Final

import torch

from ml.backbones import BackboneName, SameSize, build, parameter_count, rcan, rdn

DEEP: Final = frozenset({"rcan", "rdn"})  # 15 and 22 million parameters: seconds a step on a CPU.
CUT_DOWN: Final[dict[BackboneName, Callable[[int], SameSize]]] = {
    "rcan": lambda unshuffle: rcan(unshuffle, groups=2, blocks=6),
    "rdn": lambda unshuffle: rdn(unshuffle, blocks=3, layers=4),
}


def fresh(backbone: BackboneName, unshuffle: int, seed: int, *, cut_down: bool) -> SameSize:
    """Random weights that depend on nothing but `seed`."""
    if not cut_down or backbone not in CUT_DOWN:
        return build(backbone, unshuffle, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CUT_DOWN[backbone](unshuffle)


@cache
def multiplications(backbone: BackboneName, unshuffle: int, *, cut_down: bool) -> float:
    """About so many for each pixel of an image."""
    return parameter_count(fresh(backbone, unshuffle, seed=0, cut_down=cut_down)) / unshuffle**2

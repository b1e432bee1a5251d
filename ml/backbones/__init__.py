"""Restoration networks: image in, image of the same size out, equal to the input until they are trained.

To add one, write its body in a file of its own and name it in `BACKBONES`.
"""

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import nn

from ml.backbones.dncnn import dncnn
from ml.backbones.rcan import rcan
from ml.backbones.rdn import rdn
from ml.backbones.same_size import SameSize
from ml.backbones.vdsr import vdsr, vdsr_small
from ml.backbones.windows import Part

__all__ = [
    "BACKBONES",
    "BackboneName",
    "Part",
    "SameSize",
    "build",
    "dncnn",
    "parameter_count",
    "rcan",
    "rdn",
    "vdsr",
    "vdsr_small",
]

BackboneName = Literal["vdsr", "vdsr-small", "dncnn", "rcan", "rdn"]

BACKBONES: Final[dict[BackboneName, Callable[[int], SameSize]]] = {
    "vdsr": vdsr,
    "vdsr-small": vdsr_small,
    "dncnn": dncnn,
    "rcan": rcan,
    "rdn": rdn,
}


def build(name: BackboneName, unshuffle: int, seed: int) -> SameSize:
    """A fresh network whose random weights depend on nothing but `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BACKBONES[name](unshuffle)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # The layout in which bfloat16 convolutions are fastest.
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())

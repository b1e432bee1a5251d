"""Restoration networks: image in, image of the same size out, equal to the input until they are trained.

To add one, write its body and name it in `BACKBONES`.
"""

from collections.abc import Callable
from typing import Final, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BackboneName = Literal["vdsr"]


class SameSize(nn.Module):
    """Adds what the body computes at 1/`unshuffle` of the resolution to the image itself.

    `unshuffle` = 1 is the papers' form; 2 costs about a quarter. The body maps 3·unshuffle² channels to as many.
    """

    def __init__(self, body: nn.Module, unshuffle: int) -> None:
        super().__init__()
        self.body = body
        self.unshuffle = unshuffle

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        height, width = image.shape[-2:]
        r = self.unshuffle
        padded = F.pad(image, (0, -width % r, 0, -height % r), mode="replicate")
        residual = F.pixel_shuffle(self.body(F.pixel_unshuffle(padded, r)), r)
        return image + residual[..., :height, :width]


class ResidualBlock(nn.Module):
    """Two convolutions and a skip over them; starts close to the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = _convolution(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        change: Tensor = self.second(F.relu(self.first(features)))
        return features + change


def vdsr(unshuffle: int, *, depth: int = 20, width: int = 64) -> SameSize:
    """VDSR: 20 convolutions of 3×3 with 64 channels and one skip over all (Kim et al., CVPR 2016, arXiv:1511.04587).

    Between the first and the last, the convolutions form residual blocks of two, as the DRTL paper describes its VDSR;
    the parameters are those of the plain stack. The plain stack, whose last layer starts at zero, did not leave the
    identity within a thousand steps of Adam.
    """
    assert depth % 2 == 0, "a block has two convolutions"
    channels = 3 * unshuffle**2
    head, tail = _convolution(channels, width), _convolution(width, channels)
    nn.init.zeros_(tail.weight)  # No model starts worse than doing nothing.
    blocks = [ResidualBlock(width) for _ in range((depth - 2) // 2)]
    return SameSize(nn.Sequential(head, *blocks, tail), unshuffle)


def _convolution(channels: int, out: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


BACKBONES: Final[dict[BackboneName, Callable[[int], SameSize]]] = {"vdsr": vdsr}


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


def receptive_radius(network: SameSize) -> int:
    """How many pixels away an input pixel can still change an output pixel.

    Each convolution reaches (kernel − 1)/2 further at the body's resolution; the pixel shuffle adds up to one cell.
    """
    reach = sum((m.kernel_size[0] - 1) // 2 * m.dilation[0] for m in network.body.modules() if isinstance(m, nn.Conv2d))
    return (reach + 1) * network.unshuffle - 1 if network.unshuffle > 1 else reach

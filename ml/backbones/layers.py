"""Layers that several backbones are made of."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.backbones.reach import reach


def convolution(channels: int, out: int) -> nn.Conv2d:
    """3×3, at He et al.'s initial size, which keeps the power of features through ReLUs."""
    layer = nn.Conv2d(channels, out, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero_convolution(channels: int, out: int) -> nn.Conv2d:
    """The last layer of a body: it starts at zero, so that no model starts worse than doing nothing."""
    layer = nn.Conv2d(channels, out, 3, padding=1)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Two convolutions and a skip over them; starts close to the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = convolution(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    @property
    def reach(self) -> int:
        return reach(self.first) + reach(self.second)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        change: Tensor = self.second(F.relu(self.first(features)))
        return features + change

"""RCAN (Zhang et al., "Image super-resolution using very deep residual channel attention networks", ECCV 2018)."""

from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.backbones.layers import zero_convolution
from ml.backbones.same_size import SameSize
from ml.backbones.windows import Window

WINDOW: Final = Window(core=192, margin=32)


def rcan(
    unshuffle: int,
    *,
    groups: int = 10,
    blocks: int = 20,
    width: int = 64,
    reduction: int = 16,
    window: Window = WINDOW,
) -> SameSize:
    """10 groups of 20 blocks with 64 channels (arXiv:1807.02758), without the upsampler and the subtraction of a mean.

    Its channel attention pools over the whole image, and its 413 convolutions of 3×3 in series would see as many
    pixels far: outside training it works in windows (docs/adr/0009-a-window-for-rcan.md). In training it pools over the
    crop, as published.
    """
    return SameSize(Rcan(3 * unshuffle**2, groups, blocks, width, reduction), unshuffle, window)


class Rcan(nn.Module):
    """Groups of attention blocks with a long skip over all of them."""

    def __init__(self, channels: int, groups: int, blocks: int, width: int, reduction: int) -> None:
        super().__init__()
        self.head = _convolution(channels, width)
        self.groups = nn.Sequential(
            *(Group(blocks, width, reduction) for _ in range(groups)), _convolution(width, width)
        )
        self.tail = zero_convolution(width, channels)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        features = self.head(image)
        restored: Tensor = self.tail(features + self.groups(features))
        return restored


class Group(nn.Module):
    """Attention blocks, a convolution, and a skip over them."""

    def __init__(self, blocks: int, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(AttentionBlock(width, reduction) for _ in range(blocks)), _convolution(width, width)
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        change: Tensor = self.body(features)
        return features + change


class AttentionBlock(nn.Module):
    """Two convolutions whose result is weighted channel by channel, and a skip over them."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = _convolution(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # Two hundred blocks in series begin as the identity, and bear larger steps.
        self.attention = ChannelAttention(width, reduction)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        change: Tensor = self.attention(self.second(F.relu(self.first(features))))
        return features + change


class ChannelAttention(nn.Module):
    """A weight in (0, 1) for each channel, from the mean of every channel over all of the image."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, width // reduction, 1)
        self.excite = nn.Conv2d(width // reduction, width, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        mean = features.mean(dim=(2, 3), keepdim=True)  # (b, c, 1, 1)
        weight: Tensor = self.excite(F.relu(self.squeeze(mean))).sigmoid()  # (b, c, 1, 1)
        return features * weight


def _convolution(channels: int, out: int) -> nn.Conv2d:
    """At torch's initial size, as published."""
    return nn.Conv2d(channels, out, 3, padding=1)

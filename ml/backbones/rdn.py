"""RDN (Zhang et al., "Residual dense network for image super-resolution", CVPR 2018)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.backbones.layers import zero_convolution
from ml.backbones.reach import reach
from ml.backbones.same_size import SameSize


def rdn(unshuffle: int, *, blocks: int = 16, layers: int = 8, growth: int = 64, width: int = 64) -> SameSize:
    """D = 16 dense blocks of C = 8 layers that add G = 64 channels each, G0 = 64 (arXiv:1802.08797); no upsampler.

    It sees 132 pixels far at the body's resolution, so 264 at `unshuffle` 2. That is exact and has its price: a tile of
    1024 pixels reads (1 + 2·264/1024)² = 2.3 times its own area then, one of 384 pixels 5.6 times.
    """
    return SameSize(Rdn(3 * unshuffle**2, blocks, layers, growth, width), unshuffle)


class Rdn(nn.Module):
    """Dense blocks in series, whose results are fused, with a long skip over all of them."""

    def __init__(self, channels: int, blocks: int, layers: int, growth: int, width: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.blocks = nn.Sequential(*(DenseBlock(layers, growth, width) for _ in range(blocks)))
        self.fusion = nn.Conv2d(blocks * width, width, 1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zero_convolution(width, channels)

    @property
    def reach(self) -> int:
        in_series = [self.head, self.second, self.blocks, self.fusion, self.last, self.tail]
        return sum(reach(layer) for layer in in_series)  # The skips are shorter.

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.head(image)
        features = self.second(shallow)
        # The fusion of all blocks' results, added up block by block: joined, they would take sixteen times the memory.
        fused = self.fusion.bias.reshape(1, -1, 1, 1) if self.fusion.bias is not None else 0
        for block, weight in zip(self.blocks, self.fusion.weight.split(self.head.out_channels, dim=1), strict=True):
            features = block(features)
            fused = fused + F.conv2d(features, weight)
        restored: Tensor = self.tail(shallow + self.last(fused))
        return restored


class DenseBlock(nn.Module):
    """Every layer sees all results before it; a 1×1 convolution fuses them, and a skip leads over all."""

    def __init__(self, layers: int, growth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(layers))
        self.fusion = nn.Conv2d(width + layers * growth, width, 1)

    @property
    def reach(self) -> int:
        return sum(reach(layer) for layer in self.layers) + reach(self.fusion)  # The longest path takes every layer.

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        known = features
        for layer in self.layers:
            known = torch.cat([known, F.relu(layer(known))], dim=1)  # (b, c + i·growth, h, w)
        change: Tensor = self.fusion(known)
        return features + change

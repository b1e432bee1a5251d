"""VDSR (Kim et al., "Accurate image super-resolution using very deep convolutional networks", CVPR 2016)."""

from torch import nn

from ml.backbones.layers import ResidualBlock, convolution, zero_convolution
from ml.backbones.same_size import SameSize


def vdsr(unshuffle: int, *, depth: int = 20, width: int = 64) -> SameSize:
    """20 convolutions of 3×3 with 64 channels and one skip over all (arXiv:1511.04587).

    Between the first and the last, the convolutions form residual blocks of two, as the DRTL paper describes its VDSR;
    the parameters are those of the plain stack. The plain stack, whose last layer starts at zero, did not leave the
    identity within a thousand steps of Adam.
    """
    assert depth % 2 == 0, "a block has two convolutions"
    channels = 3 * unshuffle**2
    blocks = [ResidualBlock(width) for _ in range((depth - 2) // 2)]
    return SameSize(
        nn.Sequential(convolution(channels, width), *blocks, zero_convolution(width, channels)),
        unshuffle,
    )


def vdsr_small(unshuffle: int) -> SameSize:
    """`vdsr` with 18 convolutions of 48 channels, half of its work: what does best in minutes on a CPU.

    Chosen among networks that were trained for equal seconds (docs/adr/0038-a-small-network.md).
    """
    return vdsr(unshuffle, depth=18, width=48)

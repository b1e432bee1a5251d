"""The eight symmetries of the square as a test of the network: their mean restores better, their spread shows doubt.

A restoration should not depend on how the image was turned. Each of the eight turned images goes through the network
and is turned back; where the eight results disagree, the network is guessing. The mean is the 8× self-ensemble of
Timofte et al., Seven ways to improve example-based single image super resolution, CVPR 2016 (arXiv:1511.02228).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

# Image in, image of the same size out.
Restore = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b 3 h w"]]

TRANSFORMS: Final = 8
SATURATION_LEVELS: Final = 8  # of 255: a standard deviation of this or more is white in the trust map


@dataclass(frozen=True)
class Ensemble:
    """Mean of the eight results, and their standard deviation per pixel, averaged over the channels."""

    mean: Float[Tensor, "b 3 h w"]
    std: Float[Tensor, "b 1 h w"]


def transform(image: Float[Tensor, "*b h w"], index: int) -> Float[Tensor, "*b h2 w2"]:
    """The symmetry 0…7 of the square: `index` % 4 quarter turns, mirrored first from 4 on; 0 leaves all as it is."""
    mirrored = image.flip(-1) if index >= 4 else image
    return torch.rot90(mirrored, index % 4, dims=(-2, -1))


def inverse(image: Float[Tensor, "*b h w"], index: int) -> Float[Tensor, "*b h2 w2"]:
    """Undoes `transform`."""
    turned = torch.rot90(image, -(index % 4), dims=(-2, -1))
    return turned.flip(-1) if index >= 4 else turned


@torch.inference_mode()
def ensemble(network: Restore, image: Float[Tensor, "b 3 h w"], align: int) -> Ensemble:
    """Run the network on all eight turned images; one at a time, so that memory grows by two images only.

    The image is continued by its edge pixels to whole cells of `align` pixels before it is turned, not after: so every
    symmetry maps cells to cells, and a tile that begins and ends at cells, read with the network's radius around it,
    gives what the whole image gives there. The network keeps sizes, and pads with zeros or not alike on all sides.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % align, 0, -height % align), mode="replicate")
    mean, deviations = torch.zeros_like(padded), torch.zeros_like(padded)
    for index in range(TRANSFORMS):
        turned = transform(padded, index).contiguous(memory_format=torch.channels_last)
        result = inverse(network(turned), index).float()  # (b, 3, h, w), padded
        # Welford's update: a difference of squares would lose what float32 has left of small deviations.
        before = result - mean
        mean += before / (index + 1)
        deviations += before * (result - mean)
    std = (deviations / TRANSFORMS).sqrt().mean(dim=1, keepdim=True)  # (b, 1, h, w), padded
    return Ensemble(mean[..., :height, :width], std[..., :height, :width])


def trust_map(std: Float[Tensor, "*b 1 h w"]) -> UInt8[Tensor, "*b 1 h w"]:
    """The spread as a grey image: black where the eight agree, white from 8 levels of 255 on, linear between.

    The scale is fixed and never fitted to the image, so that maps of different images can be compared.
    """
    return (std * (255 / SATURATION_LEVELS)).clamp(0, 1).mul(255).round().to(torch.uint8)

"""What is lost when an image is stored: by JPEG, by colour at a lower resolution, by few levels."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Generator

from ml.distortions.kinds import Image
from ml.distortions.resampling import shrunk
from ml.images import jpeg as compressed

# Y, Cb, Cr from R, G, B, all in full range as JPEG has them (ITU-T T.871, with the luma of ITU-R BT.601).
YCBCR: Final = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]],
    dtype=torch.float64,
)
RGB: Final = torch.linalg.inv(YCBCR)


def coarse_colour(image: Image, factor: float) -> Image:
    """Cb and Cr at 1 / factor of the resolution, averaged on the way down and bilinear on the way up; Y is untouched.

    A factor of 2 is 4:2:0. Strong colours next to sharp edges may leave [0, 1].
    Source: ITU-T T.871 (JFIF), which places the coarse samples in the middle of those that they stand for.
    """
    height, width = image.shape[-2:]
    planes = torch.einsum("yc,...chw->...yhw", YCBCR.to(image), image).reshape(-1, 3, height, width)  # (b, 3, h, w)
    small = (shrunk(height, factor), shrunk(width, factor))
    coarse = F.interpolate(planes[:, 1:], small, mode="area")
    colour = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    rebuilt = torch.cat([planes[:, :1], colour], dim=1)  # (b, 3, h, w)
    return torch.einsum("cy,byhw->bchw", RGB.to(image), rebuilt).reshape(image.shape)


def quantized(image: Image, levels: int) -> Image:
    """The nearest of `levels` equally spaced values from 0 to 1, each channel by itself.

    y = round(x (n − 1)) / (n − 1); no dithering.
    """
    return (image.clamp(0, 1) * (levels - 1)).round() / (levels - 1)


def jpeg(image: Image, strength: float, generator: Generator) -> Image:
    """JPEG with 4:2:0 and quality 100 − 90 · strength, by Pillow. Not compressed at zero: even 100 loses colour."""
    if strength <= 0:
        return image
    images = image.reshape(-1, *image.shape[-3:])  # (b, 3, h, w)
    return torch.stack([compressed(each, round(100 - 90 * strength)) for each in images]).reshape(image.shape)


def chroma_subsampling(image: Image, strength: float, generator: Generator) -> Image:
    """Colour at 1 / (1 + 7 · strength) of the resolution: 4:2:0 at a seventh, 8×8 blocks at most. The range is ours."""
    return coarse_colour(image, 1 + 7 * strength) if strength > 0 else image


def quantize(image: Image, strength: float, generator: Generator) -> Image:
    """8 − 6 · strength bits: from 256 levels down to 4. At zero the 256 that every file has. The range is ours."""
    return quantized(image, round(2 ** (8 - 6 * strength))) if strength > 0 else image

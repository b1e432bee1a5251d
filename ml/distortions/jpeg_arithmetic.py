"""What JPEG does to an image, as arithmetic on whole batches where they are; no bytes are made.

Entropy coding loses nothing, so that what a decoder returns can be computed without it: colours as Y, Cb and Cr,
chroma averaged over 2×2 pixels, the cosine transform of 8×8 blocks rounded to multiples of a table, and all of it back.
Within a grey level or two of libjpeg, whose transforms round in integers.
Source: ITU-T T.81, annexes A.3.3 (transform), K.1 (tables); ITU-T T.871 (colours); libjpeg for what quality means.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.placement import like

BLOCK: Final = 8
UNIT: Final = 2 * BLOCK  # Pixels along a side that share a block of chroma.
# Tables K.1 and K.2.
LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * BLOCK,) * 4,
)
# Y, Cb, Cr from R, G, B, all in full range as JPEG has them (ITU-T T.871, with the luma of ITU-R BT.601).
YCBCR: Final = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]],
    dtype=torch.float64,
)
RGB: Final = torch.linalg.inv(YCBCR)
ZERO: Final = torch.tensor([0, 128, 128])[:, None, None]  # What stands for no colour.
_FREQUENCY, _POSITION = torch.meshgrid(torch.arange(BLOCK), torch.arange(BLOCK), indexing="ij")
# Eq. A.3.3: row u is the cosine of frequency u, of unit length.
COSINES: Final = torch.cos((2 * _POSITION + 1) * _FREQUENCY * math.pi / (2 * BLOCK)) * torch.where(
    _FREQUENCY == 0, math.sqrt(1 / BLOCK), math.sqrt(2 / BLOCK)
)


def quantization(qualities: Sequence[int]) -> Float[Tensor, "b 2 8 8"]:
    """The tables of luma and chroma, for each quality of 1…100, as libjpeg scales them."""
    base = torch.tensor([LUMA, CHROMA])
    scales = torch.tensor([5000 // q if q < 50 else 200 - 2 * q for q in qualities])
    return ((base * scales[:, None, None, None] + 50) // 100).clamp(1, 255).float()


def through_blocks(planes: Float[Tensor, "b c h w"], table: Float[Tensor, "b 8 8"]) -> Float[Tensor, "b c h w"]:
    """Planes of values in 0…255 after their blocks' coefficients were rounded to multiples of the tables."""
    cosines, steps = like(planes, COSINES), table[:, None, None, None]
    rows_of_blocks = planes.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    blocks = rows_of_blocks.transpose(3, 4) - 128  # (b, c, rows, columns, 8, 8)
    eighths = (cosines @ blocks @ cosines.T * 8).round()  # As exact as libjpeg's are; halves of a step are frequent.
    coefficients = eighths.sign() * (eighths.abs() / 8 / steps + 0.5).floor() * steps
    back: Tensor = (cosines.T @ coefficients @ cosines + 128).round().clamp(0, 255)
    return back.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def in_turns(values: Float[Tensor, "b c h w"], even: float, odd: float) -> Float[Tensor, "b c h w"]:
    """Round down, after adding one number in even columns and another in odd ones."""
    added = like(values, torch.tensor([even, odd]).repeat(values.shape[-1] // 2))  # (w,)
    return (values + added).floor()


def compressed_by_arithmetic(images: Float[Tensor, "b 3 h w"], qualities: Sequence[int]) -> Float[Tensor, "b 3 h w"]:
    """Images after a JPEG compression with 4:2:0 at a quality of 1…100 each, in 8-bit values in [0, 1]."""
    height, width = images.shape[-2:]
    levels = (images.clamp(0, 1) * 255).round()
    padded = F.pad(levels, (0, -width % UNIT, 0, -height % UNIT), mode="replicate")
    planes = torch.einsum("yc,bchw->byhw", like(images, YCBCR), padded)
    planes = (planes + like(images, ZERO)).round().clamp(0, 255)
    tables = like(images, quantization(qualities))
    luma = through_blocks(planes[:, :1], tables[:, 0])
    # libjpeg rounds halves down in one column and up in the next, here and below.
    averaged = in_turns(F.avg_pool2d(planes[:, 1:], 2), 1 / 4, 2 / 4)
    coarse = through_blocks(averaged, tables[:, 1])
    # Its "fancy upsampling": 3/4 of the nearer sample and 1/4 of the farther, along either axis.
    colour = in_turns(F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False), 8 / 16, 7 / 16) - 128
    rebuilt = torch.cat([luma, colour], dim=1)[..., :height, :width]
    return torch.einsum("cy,byhw->bchw", like(images, RGB), rebuilt).round().clamp(0, 255) / 255

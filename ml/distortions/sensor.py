"""A colour filter array: each pixel measures one colour, and the other two are interpolated."""

from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.chance import Amount, Source, one_of
from ml.distortions.kinds import Image, beside, by_amount
from ml.placement import like

# Malvar, He, Cutler, High-quality linear interpolation for demosaicing of Bayer-patterned color images, ICASSP 2004,
# Fig. 2: a bilinear estimate corrected by the second derivative of the colour that was measured.
GREEN: Final = torch.tensor(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]], dtype=torch.float32
)
ALONG_ROW: Final = torch.tensor(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
)
DIAGONAL: Final = torch.tensor(
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
)
FILTERS: Final = torch.stack([GREEN, ALONG_ROW, ALONG_ROW.T, DIAGONAL])[:, None] / 8  # (4, 1, 5, 5)
FIRST: Final = torch.tensor([[0.0], [1.0]], dtype=torch.float64)  # Rows, or columns, where the pattern may begin.


def sites(height: int, width: int, top: int, left: int) -> Float[Tensor, "3 {height} {width}"]:
    """Where red, green and blue are measured, as ones; (top, left) is the first red site (RGGB at 0, 0)."""
    measured = torch.zeros(3, height, width)
    measured[0, top::2, left::2] = 1
    measured[2, 1 - top :: 2, 1 - left :: 2] = 1
    measured[1] = 1 - measured[0] - measured[2]
    return measured


def demosaiced(image: Image, top: int, left: int) -> Image:
    """What remains of an image behind a colour filter array; measured values stay as they are.

    Computed on the values as they are stored, where a camera would on linear light.
    """
    height, width = image.shape[-2:]
    red, green, blue = like(image, sites(height, width, top, left))
    planes = image.reshape(-1, 3, height, width)  # (b, 3, h, w)
    raw = (planes * torch.stack([red, green, blue])).sum(dim=1, keepdim=True)  # (b, 1, h, w)
    # Mirrored without the edge pixel itself, so that the pattern goes on beyond the border.
    padded = F.pad(raw, (2, 2, 2, 2), mode="reflect")
    at_colour, along_row, along_column, diagonal = F.conv2d(padded, like(image, FILTERS)).unbind(
        dim=1
    )  # (b, h, w) each
    red_rows = green * red.amax(dim=1, keepdim=True)  # green sites in rows with red
    blue_rows = green - red_rows
    measured = raw[:, 0]
    filled = [
        red * measured + red_rows * along_row + blue_rows * along_column + blue * diagonal,
        green * measured + (red + blue) * at_colour,
        blue * measured + blue_rows * along_row + red_rows * along_column + red * diagonal,
    ]
    return torch.stack(filled, dim=1).reshape(image.shape)


def bayer(image: Image, strength: Amount, source: Source) -> Image:
    """Mosaic and demosaic, the pattern starting at a random one of its four sites; sides of at least 3 pixels.

    There is no half of a filter array: below 1 the result is mixed with the image, which keeps measured values too.
    """
    (top,), (left,) = one_of(FIRST, source), one_of(FIRST, source)
    behind = by_amount(lambda some, site: demosaiced(some, *divmod(int(site), 2)), image, 2 * top + left)
    return image + beside(strength, image) * (behind - image)

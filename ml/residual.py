"""What part of a difference between images no known distortion leaves: whole areas changed, or content out of place.

The DRN is blind to both. Its features are averaged over a patch whose difference was brought to unit size, so a
brightness shift has some node as well, and by chance a near neighbour: γ alone cannot say "unlike all that I know".
But every known distortion keeps the mean of an area, and its kernel or noise is the same in opposite directions; so
what it leaves has little energy at low frequencies, and little in common with the image's gradient.
"""

from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.distortions.blurs import gaussian_blur

AREA: Final = 16  # pixels, the side of an area
SCALES: Final = (2.0, 5.0)  # pixels; a displacement is seen at scales that are not much smaller than itself
ROUNDING: Final = (1 / 255) ** 2 / 12  # mean square of what rounding to 8 bits leaves, which tells nothing


def area_share(clean: Float[Tensor, "b 3 h w"], distorted: Float[Tensor, "b 3 h w"]) -> float:
    """The share 0…1 of the difference's energy that is in the means of areas of 16×16 pixels, Σ n·mean² / Σ r².

    Where sides are no multiples of 16, the areas at two borders have fewer pixels n, and count for so much less. Near 1
    for another exposure, colour cast, tone curve, vignette or another scene; white noise has 1/256.
    """
    residual = distorted - clean
    means = F.avg_pool2d(residual, AREA, ceil_mode=True, count_include_pad=False)
    pixels = F.avg_pool2d(torch.ones_like(residual), AREA, ceil_mode=True, divisor_override=1)  # n of each area
    in_areas = (pixels * means.square()).sum() / residual.numel()
    return float(in_areas / (residual.square().mean() + ROUNDING))


def displacement_share(clean: Float[Tensor, "b 3 h w"], distorted: Float[Tensor, "b 3 h w"]) -> float:
    """The share 0…1 of the difference's energy that one displacement of each image explains, at the best of two scales.

    To first order a displacement by (u, v) leaves u ∂x + v ∂y of the image, whose least-squares fit is Lucas and
    Kanade's (IJCAI 1981). Blur, sharpening and noise are the same in opposite directions and leave nothing of it.
    """
    residual = distorted - clean
    return max(_explained(gaussian_blur(clean, s), gaussian_blur(residual, s), int(2 * s)) for s in SCALES)


def _explained(image: Float[Tensor, "b 3 h w"], residual: Float[Tensor, "b 3 h w"], margin: int) -> float:
    """The explained share within a margin, where smoothing has not met the border."""
    gx = (image[..., 1:-1, 2:] - image[..., 1:-1, :-2]) / 2  # (b, 3, h − 2, w − 2)
    gy = (image[..., 2:, 1:-1] - image[..., :-2, 1:-1]) / 2
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    gx, gy, residual = (plane[inside].double() for plane in (gx, gy, residual[..., 1:-1, 1:-1]))
    if residual.numel() == 0:
        return 0.0  # Too narrow a strip shows nothing at this scale.

    def total(product: Tensor) -> Float[Tensor, "b"]:
        return product.sum(dim=(1, 2, 3))

    xx, xy, yy = total(gx * gx), total(gx * gy), total(gy * gy)
    xr, yr = total(gx * residual), total(gy * residual)
    flat = 1e-9 + 1e-6 * (xx + yy)  # Where the image has no structure along an axis, nothing is explained.
    determinant = (xx + flat) * (yy + flat) - xy.square()
    u = ((yy + flat) * xr - xy * yr) / determinant
    v = ((xx + flat) * yr - xy * xr) / determinant
    energy = total(residual.square()).sum() + ROUNDING * residual[0].numel() * len(residual)
    return float((u * xr + v * yr).sum() / energy)

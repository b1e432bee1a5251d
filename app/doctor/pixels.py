"""The few operations on pixels that several questions share."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.float32]  # (h, w, 3) in [0, 255]
Plane = NDArray[np.float32]  # (h, w)

GREY: Final = np.full(3, 1 / 3, dtype=np.float32)


def grey(image: Pixels) -> Plane:
    return np.ascontiguousarray(image @ GREY)


def psnr_db(one: Pixels, other: Pixels) -> float | None:
    """Peak signal-to-noise ratio, 10·log10(255²/MSE) over all channels; None for equal images."""
    error = float(np.mean((one - other) ** 2))
    return None if error == 0 else 10 * float(np.log10(255**2 / error))


def smooth(image: Plane, sigma: float) -> Plane:
    """Gaussian low-pass with σ in pixels."""
    low: Plane = ndimage.gaussian_filter(image, sigma, truncate=3)
    return low


def overlap(shape: tuple[int, ...], x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where two images (h, w) show the same, if what is at p in the first is at p + (x, y) in the second."""
    height, width = shape[:2]
    first = (slice(max(0, -y), height - max(0, y)), slice(max(0, -x), width - max(0, x)))
    second = (slice(max(0, y), height + min(0, y)), slice(max(0, x), width + min(0, x)))
    return first, second

"""How exposure and colour differ between the two images: a gain and an offset for each channel."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.doctor.measurements import Colour, Side
from app.doctor.pixels import Pixels, Plane, grey, smooth

BLOCK: Final = 4  # Noise and blur, which are the distortion, vanish in means over blocks of this side,
BLOCKS_SIGMA: Final = 1.0  # smoothed by so many blocks; exposure does not.
DARKEST, BRIGHTEST = 4.0, 251.0  # Beyond, a value may have been cut off.
LEAST_SHARE: Final = 0.02  # of pixels that must be left
UNCERTAINTY: Final = 1.0  # Levels; on a channel of less contrast than this a gain cannot be told from 1.
ROBUST_ROUNDS: Final = 3
GREY_LEVELS: Final = 1.0  # By which the channels of a grey image may differ, in the mean.
COLOURFUL_LEVELS: Final = 3.0  # By which they differ at least where colours change from place to place.


def compare_colour(clean: Pixels, distorted: Pixels) -> Colour:
    """Fit the distorted image's slow changes to the clean one's, channel by channel. Both are aligned, (h, w, 3)."""
    whole = ((clean > DARKEST) & (clean < BRIGHTEST) & (distorted > DARKEST) & (distorted < BRIGHTEST)).all(axis=2)
    mask = _slow(np.asarray(whole, np.float32)) > 0.95
    if mask.mean() < LEAST_SHARE:
        return Colour()
    fits, differences = [], []
    for channel in range(3):
        one, other = (_slow(image[..., channel])[mask] for image in (clean, distorted))
        gain, offset = _fit(one, other)
        fits.append((gain, offset))
        differences.append(float(np.mean(np.abs((gain - 1) * one + offset))))
    gains, offsets = zip(*fits, strict=True)
    return Colour((gains[0], gains[1], gains[2]), (offsets[0], offsets[1], offsets[2]), float(np.mean(differences)))


def colourless_side(clean: Pixels, distorted: Pixels) -> Side | None:
    """The side that is grey where the other has colours, more than one tint or coloured noise; None where neither is.

    A yellowed scan of a grey photograph is thus no colour image: that tint can be learnt.
    """
    if _is_grey(clean) and _is_colourful(distorted):
        return "clean"
    return "distorted" if _is_grey(distorted) and _is_colourful(clean) else None


def _is_grey(image: Pixels) -> bool:
    return float(np.mean(np.ptp(image, axis=2))) < GREY_LEVELS


def _is_colourful(image: Pixels) -> bool:
    """Whether its channels are no lines through its lightness."""
    if min(image.shape[:2]) < BLOCK:
        return False
    lightness = _slow(grey(image)).ravel()
    centred = lightness - lightness.mean()
    spread = float(centred @ centred) + UNCERTAINTY
    left = []
    for channel in range(3):
        level = _slow(image[..., channel]).ravel()
        level = level - level.mean()
        left.append(float(np.mean(np.abs(level - float(centred @ level) / spread * centred))))
    return max(left) >= COLOURFUL_LEVELS


def _slow(channel: NDArray[np.float32]) -> Plane:
    """Means over blocks, smoothed."""
    height, width = (size - size % BLOCK for size in channel.shape)
    blocks = channel[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(1, 3))
    return smooth(np.asarray(blocks, np.float32), BLOCKS_SIGMA)


def _fit(one: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, float]:
    """The line through the points (one, other), by least squares with outliers weighed down."""
    weight = np.ones_like(one)
    gain, offset = 1.0, 0.0
    for _ in range(ROBUST_ROUNDS):
        total = float(weight.sum())
        centre, other_centre = float(weight @ one) / total, float(weight @ other) / total
        deviation = one - centre
        covariance = float((weight * deviation) @ (other - other_centre)) / total
        gain = (covariance + UNCERTAINTY**2) / (float(weight @ deviation**2) / total + UNCERTAINTY**2)
        offset = other_centre - gain * centre
        residual = np.abs(other - gain * one - offset)
        bound = max(1.0, 2.0 * float(np.median(residual)))
        weight = np.minimum(1, bound / np.maximum(residual, 1e-6)).astype(np.float32)
    return gain, offset

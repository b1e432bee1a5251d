"""Where the distorted image lies against the clean one: shift, rotation and scale, to a few hundredths of a pixel."""

from math import atan2, ceil, degrees, hypot
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from app.doctor.measurements import Registration, Similarity
from app.doctor.pixels import Plane

FINE_SIGMA: Final = 1.0  # Pixels of a level. Below it lies mostly noise, which only one of the images has,
BROAD_WINDOW: Final = 15  # and above it what light and vignetting do to one of them.
LEAST_SIDE: Final = 12  # Smaller images have nothing between their borders.
LEAST_LEVEL_SIDE: Final = 40
MOST_LEVEL_SIDE: Final = 400  # More pixels make it slower and no better; what is farther out counts on coarser levels.
MOST_LEVELS: Final = 4
MOST_ITERATIONS: Final = 12
CONVERGED_PX: Final = 0.02


def register(clean: Plane, distorted: Plane) -> Registration:
    """The similarity that takes the clean grey image (h, w) to the distorted one.

    Coarse to fine: cross-correlation finds whole pixels on the coarsest level, Gauss–Newton refines all four parameters
    on every level. Both see a band of frequencies only. Each step fits the warped distorted image, with a gain, to
    the clean image and its derivatives; its fixed point does not depend on noise that only one of the images has, nor
    on a symmetric blur, and both gain and offset drop out. Constant or tiny images are uncorrelated, and stay in place.
    Source: Lucas and Kanade 1981; Baker and Matthews, IJCV 2004, doi:10.1023/B:VISI.0000011205.11775.fd (inverse
    gradients); Evangelidis and Psarakis, TPAMI 2008, doi:10.1109/TPAMI.2008.113 (gain).
    """
    found, best = Similarity(), 0.0
    if min(clean.shape) < LEAST_SIDE or min(float(np.ptp(clean)), float(np.ptp(distorted))) == 0:
        return Registration(found, best)
    pyramid = list(zip(_pyramid(clean), _pyramid(distorted), strict=True))
    for level, (low_clean, low_distorted) in reversed(list(enumerate(pyramid))):
        step = 2**level
        reference, moving = _band(low_clean), _band(low_distorted)
        if level == len(pyramid) - 1:
            found = _whole_pixels(reference, moving, step)
        centre = (np.array(clean.shape) - 1) / 2 / step - _corner(low_clean)
        found, correlation = _refine(reference, moving, step, centre, found)
        best = max(best, correlation)
    return Registration(found, best)


def _pyramid(image: Plane) -> list[Plane]:
    """The low-passed image and each halving of it that is large enough; pixel i of a level is 2i of the one below."""
    levels: list[Plane] = [ndimage.gaussian_filter(image, FINE_SIGMA, truncate=3)]
    while len(levels) < MOST_LEVELS and min(levels[-1].shape) // 2 >= LEAST_LEVEL_SIDE:
        levels.append(ndimage.gaussian_filter(levels[-1], FINE_SIGMA * 3**0.5, truncate=3)[::2, ::2])
    return levels


def _corner(image: Plane) -> NDArray[np.int64]:
    """Where the central window begins that is looked at."""
    corner: NDArray[np.int64] = np.maximum(0, np.array(image.shape) - MOST_LEVEL_SIDE) // 2
    return corner


def _band(low: Plane) -> Plane:
    """The central window without its slow changes."""
    row, column = _corner(low)
    window = low[row : row + MOST_LEVEL_SIDE, column : column + MOST_LEVEL_SIDE]
    band: Plane = window - ndimage.uniform_filter(window, BROAD_WINDOW)
    return band


def _whole_pixels(reference: Plane, moving: Plane, step: int) -> Similarity:
    """The best of several guesses at a shift by whole pixels of this level."""
    window = np.outer(np.hanning(reference.shape[0]), np.hanning(reference.shape[1])).astype(np.float32)
    guesses = [(0, 0)]
    for normalization in (None, "phase"):
        shift, _, _ = phase_cross_correlation(reference * window, moving * window, normalization=normalization)
        guesses.append((-int(shift[0]), -int(shift[1])))
    y, x = max(guesses, key=lambda guess: _overlap_correlation(reference, moving, *guess))
    return Similarity(x=float(x * step), y=float(y * step))


def _overlap_correlation(reference: Plane, moving: Plane, y: int, x: int) -> float:
    height, width = reference.shape
    if abs(y) > height // 3 or abs(x) > width // 3:
        return -1.0
    still = reference[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    moved = moving[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    return correlation_of(still, moved)


def correlation_of(one: Plane, other: Plane) -> float:
    """Pearson's; 0 where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt(np.vdot(one, one) * np.vdot(other, other)))
    return float(np.vdot(one, other)) / norm if norm > 1e-6 * one.size else 0.0


def _refine(
    reference: Plane, moving: Plane, step: int, centre: NDArray[np.float64], start: Similarity
) -> tuple[Similarity, float]:
    """Gauss–Newton on one level; keeps the start where the steps lead nowhere better."""
    height, width = reference.shape
    coefficients = ndimage.spline_filter(moving, order=3, output=np.float32)
    row, column = np.gradient(reference)
    unit = max(height, width) / 2
    y = ((np.arange(height, dtype=np.float32) - centre[0]) / unit)[:, None]
    x = ((np.arange(width, dtype=np.float32) - centre[1]) / unit)[None, :]
    # How the image changes with: growth, turn, x and y; the first two by as much as moves the border by a pixel.
    derivatives = np.stack([column * x + row * y, row * x - column * y, column, row])
    now, correlation, first = start, 0.0, -1.0
    for iteration in range(MOST_ITERATIONS):
        margin = 2 + ceil(now.displacement((height * step, width * step)) / step)
        if 3 * margin > min(height, width):
            return start, max(0.0, first)
        inner = (slice(margin, height - margin), slice(margin, width - margin))
        offset = centre + now.matrix() @ (margin - centre) + np.array([now.y, now.x]) / step
        shape = (height - 2 * margin, width - 2 * margin)
        warped = ndimage.affine_transform(
            coefficients, now.matrix(), offset, shape, output=np.float32, order=3, mode="nearest", prefilter=False
        )
        correlation = correlation_of(reference[inner], warped)
        first = correlation if iteration == 0 else first
        change = _step(derivatives[(slice(None), *inner)], warped, reference[inner])
        if change is None:
            break
        growth, turn, right, down = (float(each) for each in change)
        a, b = now.matrix()[0, 0] + growth / unit, now.matrix()[0, 1] + turn / unit
        now = Similarity(now.x + right * step, now.y + down * step, degrees(atan2(b, a)), hypot(a, b))
        if np.abs(change).max() < CONVERGED_PX:
            break
    # Not the step of highest correlation: interpolation smooths noise between pixels and would draw it there.
    return (now, correlation) if correlation > first - 0.01 else (start, first)


def _step(derivatives: NDArray[np.float32], warped: Plane, target: Plane) -> Any:
    """How far to move, in pixels of the level, so that the warped image, times some gain, equals the target."""
    columns = np.concatenate([derivatives.reshape(4, -1), warped.reshape(1, -1), np.ones((1, warped.size), np.float32)])
    normal = columns @ columns.T
    right = columns @ target.ravel()
    normal[np.diag_indices(6)] *= 1 + 1e-6
    try:
        solution = np.linalg.solve(normal.astype(np.float64), right.astype(np.float64))
    except np.linalg.LinAlgError:
        return None
    gain = solution[4]
    return solution[:4] if gain > 0 and np.all(np.isfinite(solution)) else None

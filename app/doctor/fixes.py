"""Mends a pair: swaps its sides, lays the clean image onto the distorted one, matches its exposure and colours.

The distorted image is only ever cut, by whole pixels. It is what the model will meet at work, so neither its noise
nor its blur may be resampled; whatever must be interpolated or recoloured is the clean image.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.doctor.measurements import Colour, Similarity
from app.doctor.verdict import Finding, Fix

Image = NDArray[np.uint8]  # (h, w, 3)

ORDER: Final = 5  # of the splines; `benchmarks/doctor.py` compares
TOLD_PX: Final = 0.1  # What registration cannot tell from nothing where an image has no more than
TOLD_SIDE: Final = 100  # so many pixels a side; the larger, the closer it comes.
RIM: Final = 2  # Pixels at the border where a spline has too few neighbours.


@dataclass(frozen=True)
class Window:
    """What a fixed image shows of the one it was made of: left, top, right, bottom in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, image: Image) -> Image:
        return image[self.top : self.bottom, self.left : self.right]

    def times(self, scale: int) -> "Window":
        return Window(self.left * scale, self.top * scale, self.right * scale, self.bottom * scale)

    @property
    def empty(self) -> bool:
        return self.right <= self.left or self.bottom <= self.top


def wanted_by(found: Sequence[Finding], allowed: Collection[Fix]) -> list[Fix]:
    """The fixes that findings ask for, as far as they are allowed, in the order in which they must be applied.

    `crop` does of `align` what can be done by whole pixels.
    """
    asked = {finding.fix for finding in found}
    chosen: list[Fix] = []
    if "swap" in asked and "swap" in allowed:
        chosen.append("swap")
    if "align" in asked:
        chosen += [fix for fix in ("align", "crop") if fix in allowed][:1]
    if "match_colour" in asked and "match_colour" in allowed:
        chosen.append("match_colour")
    return chosen


def match_colour(clean: Image, colour: Colour) -> Image:
    """The clean image with the exposure and colours of the distorted one.

    The model is to leave them as it finds them: how bright a scene was when it was taken twice is no distortion.
    """
    gain, offset = (np.array(each, dtype=np.float32) for each in (colour.gain, colour.offset))
    matched: Image = np.clip(np.round(clean * gain + offset), 0, 255).astype(np.uint8)
    return matched


def crop(clean: Image, distorted: Image, transform: Similarity, scale: int) -> tuple[Image, Image]:
    """Both images cut to what they share, by whole pixels, so that less than a pixel of the shift remains.

    With a scale, by whole distorted pixels, and the remainder is less than one of those. Raises ValueError where the
    images share nothing.
    """
    x, y = round(transform.x / scale), round(transform.y / scale)
    height, width = distorted.shape[:2]
    there = Window(max(0, x), max(0, y), width + min(0, x), height + min(0, y))
    here = Window(max(0, -x), max(0, -y), width - max(0, x), height - max(0, y))
    if there.empty:
        raise ValueError("transform: the images do not overlap")
    return here.times(scale).cut(clean), there.cut(distorted)


def align(
    clean: Image, distorted: Image, transform: Similarity, centre: tuple[float, float], scale: int
) -> tuple[Image, Image]:
    """The clean image where the distorted one has it, and both cut to what they share.

    `transform` turns about `centre` (row, column), in clean pixels. Where all that is wrong is a shift by whole
    distorted pixels, nothing is interpolated. Raises ValueError where the images share nothing.
    """
    matrix, shift = transform.matrix(), np.array([transform.y, transform.x])
    size = np.array(clean.shape[:2])
    middle = (size - 1) / 2
    told = TOLD_PX * min(1.0, TOLD_SIDE / float(np.sqrt(size.prod())))  # Less is not worth an interpolation.
    if float(np.linalg.norm(matrix - np.eye(2), 2)) * float(np.linalg.norm(middle)) < told:
        matrix = np.eye(2)
    # The same map about the image's own centre: p ↦ middle + matrix · (p − middle) + shift.
    shift = shift + (matrix - np.eye(2)) @ (middle - np.array(centre))
    whole = np.round(shift / scale) * scale
    if np.array_equal(matrix, np.eye(2)) and float(np.abs(shift - whole).max()) < told:
        return crop(clean, distorted, Similarity(x=float(whole[1]), y=float(whole[0])), scale)
    inverse = np.asarray(np.linalg.inv(matrix), np.float64)
    offset = middle - inverse @ (middle + shift)
    window = _covered(size, inverse, offset, scale)
    if window.empty:
        raise ValueError("transform: the images do not overlap")
    inside = window.times(scale)
    start = inverse @ np.array([inside.top, inside.left]) + offset
    shape = (inside.bottom - inside.top, inside.right - inside.left)
    warped = np.empty((*shape, clean.shape[2]), np.uint8)
    for channel in range(clean.shape[2]):
        values = ndimage.affine_transform(
            clean[..., channel].astype(np.float32), inverse, start, shape, output=np.float32, order=ORDER, mode="mirror"
        )
        warped[..., channel] = np.clip(np.round(values), 0, 255)
    return warped, window.cut(distorted)


def _covered(size: NDArray[np.int64], inverse: NDArray[np.float64], offset: NDArray[np.float64], scale: int) -> Window:
    """The distorted pixels whose clean counterparts lie inside the clean image of the given size (h, w)."""
    height, width = (int(side) for side in size)
    corners = np.array([[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]])
    sources = corners @ inverse.T + offset  # (4, 2) as (row, column)
    (upper_left, upper_right, lower_left, lower_right) = sources - RIM
    top = -min(upper_left[0], upper_right[0], 0.0)
    left = -min(upper_left[1], lower_left[1], 0.0)
    bottom = max(lower_left[0] + 2 * RIM - (height - 1), lower_right[0] + 2 * RIM - (height - 1), 0.0)
    right = max(upper_right[1] + 2 * RIM - (width - 1), lower_right[1] + 2 * RIM - (width - 1), 0.0)
    return Window(
        ceil(left / scale), ceil(top / scale), floor((width - right) / scale), floor((height - bottom) / scale)
    )

"""Measures one pair: every question once, on a central window that bounds the time it takes."""

from math import ceil, hypot
from typing import Final

import numpy as np
from scipy import ndimage

from app.doctor.colour import colourless_side, compare_colour
from app.doctor.content import clipping, texture
from app.doctor.fingerprint import fingerprint
from app.doctor.measurements import Measurements, Registration, Similarity
from app.doctor.pixels import Pixels, grey, overlap, psnr_db
from app.doctor.registration import register
from app.doctor.sharpness import compare_sharpness

DETAIL_SIDE: Final = 384  # What needs full resolution, but not the whole image, is measured on this much of its centre.
ALIGNED_PX: Final = 0.1  # What registration cannot tell from nothing.
# Where a turn or growth moves the corners by more, fine structure there no longer lies on itself: gains seem small and
# sides swapped.
TURNED_PX: Final = 1.0
RIM: Final = 4  # Pixels at the border that a spline makes up, beside those that are moved in.


def examine(clean: Pixels, distorted: Pixels) -> Measurements:
    """Measure a pair of equally large images (h, w, 3) in [0, 255]; the centre is the centre of these arrays."""
    strict = psnr_db(clean, distorted)
    grey_clean, grey_distorted = grey(clean), grey(distorted)
    found = register(grey_clean, grey_distorted) if strict is not None else Registration(Similarity(), 1.0)
    height, width = grey_clean.shape
    x, y = round(found.transform.x), round(found.transform.y)
    if max(abs(x) / width, abs(y) / height) > 0.5:
        x = y = 0
    here, there = overlap(grey_clean.shape, x, y)
    rest = _rest(found.transform, x, y)
    colour = compare_colour(*_laid(clean[here], distorted[there], rest, order=1))
    # Exposure changes the height of edges; without its difference their sharpness can be compared.
    gain, offset = float(np.mean(colour.gain)), float(np.mean(colour.offset))
    one, other = _laid(_central(grey_clean[here])[..., None], _central(grey_distorted[there])[..., None], rest, order=3)
    even = one[..., 0] * max(0.05, gain) + offset
    return Measurements(
        psnr_db=strict,
        aligned_psnr_db=aligned_psnr_db(_central(clean), _central(distorted), found.transform, strict),
        registration=found,
        radius=hypot(height, width) / 2,
        colour=colour,
        colourless=colourless_side(clean, distorted),
        sharpness=compare_sharpness(even, other[..., 0]),
        texture=texture(grey_clean),
        clipping=clipping(clean, distorted),
        fingerprint=fingerprint(grey_clean),
    )


def _central(image: Pixels) -> Pixels:
    top, left = max(0, image.shape[0] - DETAIL_SIDE) // 2, max(0, image.shape[1] - DETAIL_SIDE) // 2
    return image[top : top + DETAIL_SIDE, left : left + DETAIL_SIDE]


def _rest(transform: Similarity, x: int, y: int) -> Similarity:
    """What is left of the transform, about the overlap's centre, between the parts that a shift by (x, y) overlays."""
    whole = np.array([y, x])
    down, right = np.array([transform.y, transform.x]) - whole - (transform.matrix() - np.eye(2)) @ whole / 2
    return Similarity(float(right), float(down), transform.rotation_deg, transform.scale)


def _laid(clean: Pixels, distorted: Pixels, rest: Similarity, order: int) -> tuple[Pixels, Pixels]:
    """Both images (h, w, c) without their rim, the clean one where the distorted one has it; as they are if not turned.

    Splines of order 1 are fast and keep slow changes, those of order 3 keep detail, too.
    """
    turned = Similarity(rotation_deg=rest.rotation_deg, scale=rest.scale).displacement(clean.shape)
    margin = ceil(rest.displacement(clean.shape)) + RIM
    if turned <= TURNED_PX or 3 * margin > min(clean.shape[:2]):
        return clean, distorted
    inner = (slice(margin, clean.shape[0] - margin), slice(margin, clean.shape[1] - margin))
    return warp(clean, rest, order)[inner], distorted[inner]


def aligned_psnr_db(clean: Pixels, distorted: Pixels, transform: Similarity, strict: float | None) -> float | None:
    """The strict PSNR and what is gained by laying the clean image onto the distorted one, measured on these pixels."""
    margin = int(transform.displacement(clean.shape)) + 4
    if strict is None or transform.displacement(clean.shape) < ALIGNED_PX or 3 * margin > min(clean.shape[:2]):
        return strict
    inner = (slice(margin, clean.shape[0] - margin), slice(margin, clean.shape[1] - margin))
    before, after = psnr_db(clean[inner], distorted[inner]), psnr_db(warp(clean, transform)[inner], distorted[inner])
    return strict if before is None or after is None else strict + max(0.0, after - before)


def warp(clean: Pixels, transform: Similarity, order: int = 3) -> Pixels:
    """The clean image (h, w, c) where the distorted one has it, by splines; the rim is made up."""
    inverse = np.linalg.inv(transform.matrix())
    centre = (np.array(clean.shape[:2]) - 1) / 2
    offset = centre - inverse @ (centre + np.array([transform.y, transform.x]))
    warped = np.empty_like(clean)
    for channel in range(clean.shape[2]):
        ndimage.affine_transform(
            clean[..., channel], inverse, offset, output=warped[..., channel], order=order, mode="mirror"
        )
    return warped

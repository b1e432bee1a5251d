"""Which of the two images is the sharper and the less noisy: pairs whose sides were swapped are found by it."""

from math import log2
from typing import Final

import numpy as np

from app.doctor.measurements import Order, Sharpness
from app.doctor.pixels import Plane, smooth

NARROW, WIDE = 0.7, 1.6  # σ in pixels of the band that is looked at
SCENE_SIGMA: Final = 2.0  # At this scale both images show the same edges.
FLAT_SHARE, EDGE_SHARE = 0.3, 0.1  # of the pixels, by strength of the scene's edges
ROUNDING: Final = 0.1  # Energy of what rounding to whole levels leaves in the band
# By how much the sides must differ, in octaves; set by `benchmarks/doctor.py`.
BLUR_MATTERS: Final = 0.15
BLUR_SWAPS: Final = 0.45  # More, to call a pair swapped: compression and noise make false edges.
BLUR_OVER_NOISE: Final = 0.4  # Less softening than this share of the noise is the noise that changes with brightness.
DETAIL_OVER_NOISE: Final = 0.5  # Less energy at edges than this share of the ground's is an accident of the noise.
BLOCKS_MATTER: Final = 0.12
NOISE_MATTERS: Final = 0.25
NOISE_SWAPS: Final = 0.9  # More, to call a pair swapped: lossy compression and denoising also calm flat ground.


def compare_sharpness(clean: Plane, distorted: Plane) -> Sharpness:
    """Compare two aligned grey images (h, w) of equal exposure.

    Noise is as energetic as detail. It is everywhere, though, and detail is at edges: flat ground tells the noise, and
    edges have it on top of their detail. Where edges do not decide, the image with blocks, or more noise, is the
    distorted one.
    """
    scene = smooth(clean + distorted, SCENE_SIGMA)
    row, column = np.gradient(scene)
    strength = np.hypot(row, column)
    flat = strength <= np.quantile(strength, FLAT_SHARE)
    edges = strength >= np.quantile(strength, 1 - EDGE_SHARE)
    noise, detail = [], []
    for image in (clean, distorted):
        energy = (smooth(image, NARROW) - smooth(image, WIDE)) ** 2
        ground = float(energy[flat].mean())
        noise.append(ground + ROUNDING)
        detail.append(max(0.0, float(energy[edges].mean()) - ground) + ROUNDING)
    softer, noisier = log2(detail[0] / detail[1]) / 2, log2(noise[1] / noise[0]) / 2
    blockier = log2(_blocks(distorted) / _blocks(clean))
    visible = max(detail) > DETAIL_OVER_NOISE * max(noise)
    order = _order(softer if visible else 0.0, noisier, blockier)
    return Sharpness(detail[0] ** 0.5, detail[1] ** 0.5, softer, noisier, blockier, order)


def _blocks(image: Plane) -> float:
    """How much larger jumps are every eighth pixel, at the place where they are largest; 1 without blocks."""
    strongest = []
    for axis in (0, 1):
        jumps = np.abs(np.diff(image, n=3, axis=axis)).mean(axis=1 - axis)  # third difference: a step in a slope
        phases = np.array([jumps[phase::8].mean() for phase in range(8)]) + ROUNDING
        strongest.append(float(phases.max() / np.median(phases)))
    return max(1.0, sum(strongest) / 2)


def _order(softer: float, noisier: float, blockier: float) -> Order:
    if softer > max(BLUR_MATTERS, BLUR_OVER_NOISE * abs(noisier)):
        return "right"
    if -softer > max(BLUR_SWAPS, BLUR_OVER_NOISE * abs(noisier)):
        return "swapped"
    hidden = abs(noisier) > NOISE_MATTERS and noisier * blockier < 0  # One side's noise may hide that side's blocks.
    if abs(blockier) > BLOCKS_MATTER and not hidden:
        return "right" if blockier > 0 else "swapped"
    if noisier > NOISE_MATTERS and (not hidden or noisier > NOISE_SWAPS):
        return "right"
    return "swapped" if noisier < -NOISE_SWAPS else "equal"

"""Procedural clean images: leaves of all sizes that hide one another, as edges in photographs do.

Source: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 2001; Achddou et al., "Synthetic images as
a regularity prior for image restoration neural networks", SSVM 2021 (radii by a power law with exponent 3).
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml.distortions.resampling import resize

BETWEEN_TICKS = 200  # leaves
OVERSAMPLING = 2  # Leaves are drawn at twice the size, so that their edges are antialiased like a camera's.
MOST_DRAWS = 13  # Random numbers that a leaf needs.


def dead_leaves(
    size: int, generator: Generator, *, leaves: int = 1200, tick: Callable[[], None] = lambda: None
) -> Float[Tensor, "3 {size} {size}"]:
    """A square image of overlapping, shaded and striped ellipses, `size` pixels wide, values in [0, 1].

    Calls `tick` every so many leaves, for it takes a moment. Most leaves are a few pixels, where an
    operation's cost is that of calling it; NumPy's calls are the cheaper ones.
    """
    side = size * OVERSAMPLING
    canvas = np.full((3, side, side), 0.5, np.float32)
    drawn: Iterator[float] = iter(torch.rand(3 + leaves * MOST_DRAWS, generator=generator).tolist())

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * next(drawn)

    def colour() -> Float[np.ndarray, "3"]:
        return np.array([next(drawn) for _ in range(3)], np.float32)

    mood = colour()  # Photographs have a palette; independent colours would be confetti.
    smallest, largest = 2.0 * OVERSAMPLING, side / 2.5
    for leaf_number in range(leaves):
        if leaf_number % BETWEEN_TICKS == 0:
            tick()
        # Inverse-transform sampling of p(r) ~ r^-3 between the two limits.
        u = uniform(0, 1)
        radius = (smallest**-2 - u * (smallest**-2 - largest**-2)) ** -0.5
        x, y = uniform(-radius / 2, side + radius / 2), uniform(-radius / 2, side + radius / 2)
        left, right = max(0, int(x - radius)), min(side, int(x + radius) + 2)
        top, bottom = max(0, int(y - radius)), min(side, int(y + radius) + 2)
        if left >= right or top >= bottom:
            continue
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - y  # (h, 1)
        dx = np.arange(left, right, dtype=np.float32)[None, :] - x  # (1, w)
        angle = uniform(0, math.pi)
        along = dx * math.cos(angle) + dy * math.sin(angle)  # (h, w)
        across = dy * math.cos(angle) - dx * math.sin(angle)  # (h, w)
        inside = along**2 + (across / uniform(0.3, 1)) ** 2 < radius**2  # (h, w)
        tint = 0.5 * mood + 0.5 * colour()
        shade = uniform(-0.25, 0.25) * along / radius  # (h, w)
        if uniform(0, 1) < 0.5:
            period = uniform(2.5, 12) * OVERSAMPLING
            stripes = torch.from_numpy(across * (2 * math.pi / period)).sin().numpy()  # (h, w)
            shade += uniform(0.05, 0.3) * stripes
        leaf = np.clip(tint[:, None, None] * uniform(0.3, 1.2) + shade, 0, 1)  # (3, h, w)
        np.copyto(canvas[:, top:bottom, left:right], leaf, where=inside)
    return resize(torch.from_numpy(canvas), size, size)

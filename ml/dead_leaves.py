"""Procedural clean images: leaves of all sizes that hide one another, as edges in photographs do.

Source: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 2001; Achddou et al., "Synthetic images as
a regularity prior for image restoration neural networks", SSVM 2021 (radii by a power law with exponent 3).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml.distortions.kinds import uniform
from ml.distortions.resampling import resize

BETWEEN_TICKS = 200  # leaves
OVERSAMPLING = 2  # Leaves are drawn at twice the size, so that their edges are antialiased like a camera's.


def dead_leaves(
    size: int, generator: Generator, *, leaves: int = 1200, tick: Callable[[], None] = lambda: None
) -> Float[Tensor, "3 {size} {size}"]:
    """A square image of overlapping, shaded and striped ellipses, `size` pixels wide, values in [0, 1].

    Calls `tick` every so many leaves, for it takes a second.
    """
    side = size * OVERSAMPLING
    canvas = torch.full((3, side, side), 0.5)
    mood = torch.rand(3, generator=generator)  # Photographs have a palette; independent colours would be confetti.
    smallest, largest = 2.0 * OVERSAMPLING, side / 2.5
    for leaf_number in range(leaves):
        if leaf_number % BETWEEN_TICKS == 0:
            tick()
        # Inverse-transform sampling of p(r) ~ r^-3 between the two limits.
        u = uniform(0, 1, generator)
        radius = (smallest**-2 - u * (smallest**-2 - largest**-2)) ** -0.5
        x, y = uniform(-radius / 2, side + radius / 2, generator), uniform(-radius / 2, side + radius / 2, generator)
        left, right = max(0, int(x - radius)), min(side, int(x + radius) + 2)
        top, bottom = max(0, int(y - radius)), min(side, int(y + radius) + 2)
        if left >= right or top >= bottom:
            continue
        dy = torch.arange(top, bottom, dtype=torch.float32)[:, None] - y  # (h, 1)
        dx = torch.arange(left, right, dtype=torch.float32)[None, :] - x  # (1, w)
        angle = uniform(0, math.pi, generator)
        along = dx * math.cos(angle) + dy * math.sin(angle)  # (h, w)
        across = dy * math.cos(angle) - dx * math.sin(angle)  # (h, w)
        inside = along**2 + (across / uniform(0.3, 1, generator)) ** 2 < radius**2  # (h, w)
        colour = 0.5 * mood + 0.5 * torch.rand(3, generator=generator)
        shade = uniform(-0.25, 0.25, generator) * along / radius  # (h, w)
        if uniform(0, 1, generator) < 0.5:
            period = uniform(2.5, 12, generator) * OVERSAMPLING
            shade = shade + uniform(0.05, 0.3, generator) * torch.sin(across * (2 * math.pi / period))
        leaf = (colour[:, None, None] * uniform(0.3, 1.2, generator) + shade).clamp(0, 1)  # (3, h, w)
        region = canvas[:, top:bottom, left:right]
        canvas[:, top:bottom, left:right] = torch.where(inside, leaf, region)
    return resize(canvas, size, size)

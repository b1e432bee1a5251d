"""What is measured of a pair. Importing this costs no SciPy, so the service may."""

from dataclasses import dataclass
from math import cos, hypot, radians, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Channels = tuple[float, float, float]
Order = Literal["right", "swapped", "equal"]
Side = Literal["clean", "distorted"]


@dataclass(frozen=True)
class Similarity:
    """The point p of the clean image lies at c + scale · R(rotation) · (p − c) + (x, y) in the distorted one.

    c is the images' centre; x is to the right, y down, in pixels; a positive rotation turns from x towards y.
    """

    x: float = 0.0
    y: float = 0.0
    rotation_deg: float = 0.0
    scale: float = 1.0

    def matrix(self) -> NDArray[np.float64]:
        """The linear part, for (row, column) coordinates."""
        a, b = self.scale * cos(radians(self.rotation_deg)), self.scale * sin(radians(self.rotation_deg))
        return np.array([[a, b], [-b, a]])

    def displacement(self, shape: tuple[int, ...]) -> float:
        """The farthest that any point of an image (h, w) is moved, in pixels."""
        radius = hypot(shape[0] - 1, shape[1] - 1) / 2
        turned = self.matrix() - np.eye(2)
        return hypot(self.x, self.y) + radius * float(np.linalg.norm(turned, 2))


@dataclass(frozen=True)
class Registration:
    """The transform with what speaks for it: the correlation of the two images' structure after undoing it."""

    transform: Similarity
    correlation: float


@dataclass(frozen=True)
class Colour:
    """distorted ≈ gain · clean + offset for R, G and B; `difference` is by how many levels that changes a pixel."""

    gain: Channels = (1.0, 1.0, 1.0)
    offset: Channels = (0.0, 0.0, 0.0)
    difference: float = 0.0


@dataclass(frozen=True)
class Sharpness:
    """Detail of each image at edges, in levels, and what differs between them, in octaves (1 is a factor of two).

    `softer`: how much weaker the distorted image's edges are. `noisier`: how much stronger its flat ground varies.
    `blockier`: how much more its 8×8 blocks show.
    """

    clean: float
    distorted: float
    softer: float
    noisier: float
    blockier: float
    order: Order


@dataclass(frozen=True)
class Clipping:
    """Shares of pixels that are black or white to the last level in some channel."""

    clean: float
    distorted: float


@dataclass(frozen=True)
class Measurements:
    """All that is measured of one pair, PSNR in dB (None for equal images). `radius` is half the diagonal in pixels.

    `colourless` is the side that is grey where the other has colours.
    """

    psnr_db: float | None
    aligned_psnr_db: float | None
    registration: Registration
    radius: float
    colour: Colour
    colourless: Side | None
    sharpness: Sharpness
    texture: float
    clipping: Clipping
    fingerprint: str

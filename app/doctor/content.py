"""What an image has to teach: texture, and values that were cut off at black or white."""

from typing import Final

from app.doctor.measurements import Clipping
from app.doctor.pixels import Pixels, Plane, smooth

TILE: Final = 16
STRUCTURE_LEVELS: Final = 1.5  # A tile varies by at least this where it shows something.


def texture(clean: Plane) -> float:
    """The share of 16×16 tiles of the grey image (h, w) that show any structure."""
    band = smooth(clean, 1.0) - smooth(clean, 6.0)
    height, width = (max(TILE, size - size % TILE) for size in clean.shape)
    if min(clean.shape) < TILE:
        return float(band.std() >= STRUCTURE_LEVELS)
    tiles = band[:height, :width].reshape(height // TILE, TILE, width // TILE, TILE)
    return float((tiles.std(axis=(1, 3)) >= STRUCTURE_LEVELS).mean())


def clipping(clean: Pixels, distorted: Pixels) -> Clipping:
    def share(image: Pixels) -> float:
        return float(((image <= 0) | (image >= 255)).any(axis=2).mean())

    return Clipping(share(clean), share(distorted))

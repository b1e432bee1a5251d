"""Photographs that scikit-image carries, moved, brightened and spoiled in known ways."""

import numpy as np
from scipy import ndimage
from skimage import data

from app.doctor.measurements import Similarity
from app.doctor.pixels import Pixels

MARGIN = 24


def photograph(name: str = "astronaut", height: int = 301, width: int = 277) -> Pixels:
    """An odd-sized piece of a photograph with a margin of real pixels around it."""
    image: np.ndarray = getattr(data, name)()
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=2)
    top, left = 20, 60
    return image[top : top + height + 2 * MARGIN, left : left + width + 2 * MARGIN].astype(np.float32)


def moved(image: Pixels, transform: Similarity = Similarity(), gain: object = 1.0) -> Pixels:  # noqa: B008 - frozen
    """The inner part of the image after the transform, in 8 bits."""
    inverse = np.linalg.inv(transform.matrix())
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - inverse @ (centre + np.array([transform.y, transform.x]))
    channels = [
        ndimage.affine_transform(channel.astype(np.float64), inverse, offset, order=5, mode="mirror")
        for channel in np.moveaxis(image, 2, 0)
    ]
    inner = np.stack(channels, axis=2)[MARGIN:-MARGIN, MARGIN:-MARGIN] * np.asarray(gain)
    return rounded(inner)


def rounded(image: np.ndarray) -> Pixels:
    return np.clip(np.round(image), 0, 255).astype(np.float32)


def blurred(image: Pixels, sigma: float) -> Pixels:
    return rounded(ndimage.gaussian_filter(image, (sigma, sigma, 0)))


def noisy(image: Pixels, sigma: float, seed: int = 0) -> Pixels:
    return rounded(image + np.random.default_rng(seed).normal(0, sigma, image.shape))

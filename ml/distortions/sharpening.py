"""Over-sharpening, as cameras and image editors do it."""

from torch import Generator

from ml.distortions.blurs import gaussian_blur
from ml.distortions.kinds import Image, uniform


def unsharp_mask(image: Image, amount: float, sigma: float) -> Image:
    """x + a · (x − G_σ x): edges gain contrast, and overshoot on both sides; flat ground stays.

    Source: Polesel et al., Image enhancement via adaptive unsharp masking, TIP 2000, doi:10.1109/83.826787 (the
    linear form that it begins with).
    """
    return image + amount * (image - gaussian_blur(image, sigma))


def sharpen_halo(image: Image, strength: float, generator: Generator) -> Image:
    """An unsharp mask of amount 3 · strength whose σ is drawn from 0.7 to 2.5 pixels. The ranges are ours."""
    sigma = uniform(0.7, 2.5, generator)
    return unsharp_mask(image, 3 * strength, sigma) if strength > 0 else image

"""Over-sharpening, as cameras and image editors do it."""

from ml.chance import Amount, Source, uniform
from ml.distortions.blurs import gaussian_blur
from ml.distortions.kinds import Image, beside


def unsharp_mask(image: Image, amount: Amount, sigma: Amount) -> Image:
    """x + a · (x − G_σ x): edges gain contrast, and overshoot on both sides; flat ground stays.

    Source: Polesel et al., Image enhancement via adaptive unsharp masking, TIP 2000, doi:10.1109/83.826787 (the
    linear form that it begins with).
    """
    return image + beside(amount, image) * (image - gaussian_blur(image, sigma))


def sharpen_halo(image: Image, strength: Amount, source: Source) -> Image:
    """An unsharp mask of amount 3 · strength whose σ is drawn from 0.7 to 2.5 pixels. The ranges are ours."""
    return unsharp_mask(image, 3 * strength, uniform(0.7, 2.5, source))

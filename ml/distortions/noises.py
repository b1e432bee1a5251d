"""Noise: additive, by the count of photons, and multiplicative. They differ in how variance depends on brightness."""

from ml.chance import Amount, Source, normal
from ml.chance import poisson as counted
from ml.distortions.kinds import Image, beside


def gaussian_noise(image: Image, sigma_255: Amount, source: Source) -> Image:
    """Additive white Gaussian noise; `sigma_255` on the scale 0…255, the same at every brightness."""
    return image + normal(image, source) * beside(sigma_255 / 255, image)


def shot_noise(image: Image, photons: Amount, source: Source) -> Image:
    """Poisson(x · N) / N for N `photons` at white: mean x, variance x / N, proportional to the mean.

    Source: Foi et al., Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data, TIP 2008,
    doi:10.1109/TIP.2008.2001399.
    """
    light = image.detach().double().clamp_min(0)  # Since float32 has no whole numbers beyond 2^24.
    at_white = beside(photons, light)
    return (counted(light * at_white, source) / at_white).to(image)


def speckle_noise(image: Image, sigma: Amount, source: Source) -> Image:
    """x · (1 + n) with n ~ N(0, σ²): mean x, variance σ² x², proportional to the square of the mean.

    Source: the Gaussian form of multiplicative noise in coherent imaging; Goodman, Some fundamental properties of
    speckle, JOSA 1976, doi:10.1364/JOSA.66.001145.
    """
    return image * (1 + beside(sigma, image) * normal(image, source))


def noise(image: Image, strength: Amount, source: Source) -> Image:
    """Gaussian noise with σ = 50 · strength of 255 (Table 4)."""
    return gaussian_noise(image, 50 * strength, source)


def poisson(image: Image, strength: Amount, source: Source) -> Image:
    """Shot noise with σ = 50 · strength of 255 at white, as `noise` has everywhere. The range is ours."""
    return shot_noise(image, (255 / (50 * strength)) ** 2, source)


def speckle(image: Image, strength: Amount, source: Source) -> Image:
    """Speckle with σ = 0.4 · strength. The range is ours."""
    return speckle_noise(image, 0.4 * strength, source)

"""Noise: additive, by the count of photons, and multiplicative. They differ in how variance depends on brightness."""

import torch
from torch import Generator

from ml.distortions.kinds import LEAST_STRENGTH, Image


def gaussian_noise(image: Image, sigma_255: float, generator: Generator) -> Image:
    """Additive white Gaussian noise; `sigma_255` on the scale 0…255, the same at every brightness."""
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return image + noise * (sigma_255 / 255)


def shot_noise(image: Image, photons: float, generator: Generator) -> Image:
    """Poisson(x · N) / N for N `photons` at white: mean x, variance x / N, proportional to the mean.

    Source: Foi et al., Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data, TIP 2008,
    doi:10.1109/TIP.2008.2001399.
    """
    # In double precision, since float32 has no whole numbers beyond 2^24.
    expected = image.detach().cpu().double().clamp_min(0) * photons
    return (torch.poisson(expected, generator=generator) / photons).to(image)


def speckle_noise(image: Image, sigma: float, generator: Generator) -> Image:
    """x · (1 + n) with n ~ N(0, σ²): mean x, variance σ² x², proportional to the square of the mean.

    Source: the Gaussian form of multiplicative noise in coherent imaging; Goodman, Some fundamental properties of
    speckle, JOSA 1976, doi:10.1364/JOSA.66.001145.
    """
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return image * (1 + sigma * noise)


def noise(image: Image, strength: float, generator: Generator) -> Image:
    """Gaussian noise with σ = 50 · strength of 255 (Table 4)."""
    return gaussian_noise(image, 50 * strength, generator)


def poisson(image: Image, strength: float, generator: Generator) -> Image:
    """Shot noise with σ = 50 · strength of 255 at white, as `noise` has everywhere. The range is ours."""
    return shot_noise(image, (255 / (50 * strength)) ** 2, generator) if strength > LEAST_STRENGTH else image


def speckle(image: Image, strength: float, generator: Generator) -> Image:
    """Speckle with σ = 0.4 · strength. The range is ours."""
    return speckle_noise(image, 0.4 * strength, generator)

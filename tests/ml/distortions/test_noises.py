"""Noise: what the variance is, and how it depends on brightness."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, poisson

from ml.distortions import DISTORTIONS
from ml.distortions.noises import gaussian_noise, shot_noise, speckle_noise

Seeded = Callable[[int], torch.Generator]
SIGNALS = [0.1, 0.3, 0.6, 0.9]


def of_flat(noise: Callable[[torch.Tensor], torch.Tensor], signal: float) -> torch.Tensor:
    """A flat image after the noise."""
    return noise(torch.full((3, 211, 190), signal)).double()


@pytest.mark.parametrize("sigma_255", [1.0, 20.0, 50.0])
def test_noise_has_the_variance_of_its_sigma_and_no_mean(sigma_255: float, seeded: Seeded) -> None:
    deviation = gaussian_noise(torch.full((3, 211, 190), 0.5), sigma_255, seeded(0)) - 0.5
    assert float(deviation.std()) == pytest.approx(sigma_255 / 255, rel=0.01)
    assert abs(float(deviation.mean())) < 0.005 * sigma_255 / 255 * math.sqrt(2)


def test_noise_is_independent_between_pixels_and_channels(seeded: Seeded) -> None:
    deviation = gaussian_noise(torch.zeros(3, 151, 160), 10, seeded(0)) * 25.5
    assert abs(float((deviation[:, :, 1:] * deviation[:, :, :-1]).mean())) < 0.02
    assert abs(float((deviation[0] * deviation[1]).mean())) < 0.03


def test_the_strength_of_noise_is_uniform_up_to_50(seeded: Seeded) -> None:
    flat = torch.full((3, 32, 32), 0.5)
    sigmas = sorted(float((DISTORTIONS["noise"].apply(flat, seeded(seed)) - 0.5).std() * 255) for seed in range(200))
    assert sigmas[-1] < 52
    assert sigmas[-1] > 47
    assert sigmas[0] < 3
    assert np.mean(sigmas) == pytest.approx(25, abs=3)


@pytest.mark.parametrize("signal", SIGNALS)
def test_shot_noise_has_a_variance_proportional_to_the_mean(signal: float, seeded: Seeded) -> None:
    noisy = of_flat(lambda image: shot_noise(image, 200, seeded(0)), signal)
    assert float(noisy.mean()) == pytest.approx(signal, rel=0.005)
    assert float(noisy.var()) == pytest.approx(signal / 200, rel=0.02)


def test_shot_noise_counts_photons_as_scipys_poisson_distribution_does(seeded: Seeded) -> None:
    noisy = of_flat(lambda image: shot_noise(image, 10, seeded(0)), 0.5)  # five are expected
    counts = (noisy * 10).flatten()
    assert torch.allclose(counts, counts.round(), atol=1e-5)
    seen = np.bincount(counts.round().int().numpy(), minlength=16)
    among = poisson.pmf(np.arange(15), 5)
    expected = np.append(among, 1 - among.sum()) * len(counts)
    assert chisquare(np.append(seen[:15], seen[15:].sum()), expected).pvalue > 1e-3


@pytest.mark.parametrize("photons", [1e3, 1e9, 1e12])
def test_many_photons_leave_little_noise_however_many(photons: float, seeded: Seeded) -> None:
    noisy = of_flat(lambda image: shot_noise(image, photons, seeded(0)), 0.5)
    assert float((noisy - 0.5).std()) == pytest.approx(math.sqrt(0.5 / photons), rel=0.02, abs=1e-7)


@pytest.mark.parametrize("signal", SIGNALS)
def test_speckle_has_a_variance_proportional_to_the_square_of_the_mean(signal: float, seeded: Seeded) -> None:
    noisy = of_flat(lambda image: speckle_noise(image, 0.2, seeded(0)), signal)
    assert float(noisy.mean()) == pytest.approx(signal, rel=0.005)
    assert float(noisy.var()) == pytest.approx(0.04 * signal**2, rel=0.02)


@pytest.mark.parametrize("name", ["poisson", "speckle"])
def test_black_stays_black(name: str, seeded: Seeded) -> None:
    black = torch.zeros(3, 37, 31)
    assert torch.equal(DISTORTIONS[name].at(black, 1.0, seeded(0)), black)


def test_photon_noise_at_white_is_as_strong_as_gaussian_noise_everywhere(seeded: Seeded) -> None:
    def strength_255(name: str) -> float:
        return float(of_flat(lambda image: DISTORTIONS[name].at(image, 0.4, seeded(0)), 1.0).std()) * 255

    for name in ("noise", "poisson"):
        assert strength_255(name) == pytest.approx(20, rel=0.02), name

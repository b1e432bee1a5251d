"""PSNR and SSIM against scikit-image."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from ml.metrics import HIGHEST_DB, luma, psnr, ssim

Seeded = Callable[[int], torch.Generator]


def noisy(image: Tensor, sigma_255: float, generator: torch.Generator) -> Tensor:
    return (image + sigma_255 / 255 * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def eight_bits(image: Tensor) -> np.ndarray:
    return np.round(image.double().numpy() * 255) / 255


@pytest.fixture
def photograph(photographs: dict[str, Tensor]) -> Tensor:
    return photographs["astronaut"][:, 100:171, 120:183] / 255  # 71×63


@pytest.mark.parametrize("sigma", [1.0, 10.0, 60.0])
def test_psnr_is_scikit_images(photograph: Tensor, sigma: float, seeded: Seeded) -> None:
    image = noisy(photograph, sigma, seeded(0))
    expected = peak_signal_noise_ratio(eight_bits(photograph), eight_bits(image), data_range=1)
    assert psnr(image, photograph) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sigma", [1.0, 10.0, 60.0])
def test_ssim_is_scikit_images(photograph: Tensor, sigma: float, seeded: Seeded) -> None:
    """Both leave the border of 5 pixels, which the window does not cover, out of the mean."""
    image = noisy(photograph, sigma, seeded(0))
    expected = structural_similarity(
        eight_bits(photograph),
        eight_bits(image),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=0,
    )
    assert ssim(image, photograph) == pytest.approx(expected, abs=1e-4)


def test_luma_is_scikit_images_and_runs_from_16_to_235(photograph: Tensor) -> None:
    expected = rgb2ycbcr(photograph.permute(1, 2, 0).double().numpy())[..., 0]
    assert np.allclose(luma(photograph)[0].numpy() * 255, expected, atol=1e-3)
    black_and_white = luma(torch.tensor([0.0, 1.0]).expand(3, 1, 2)) * 255
    assert black_and_white.flatten().tolist() == pytest.approx([16, 235], abs=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 10.0, 60.0])
def test_metrics_of_luma_are_scikit_images(photograph: Tensor, sigma: float, seeded: Seeded) -> None:
    image = noisy(photograph, sigma, seeded(0))
    ours, clean = (rgb2ycbcr(eight_bits(each).transpose(1, 2, 0))[..., 0] / 255 for each in (image, photograph))
    assert psnr(image, photograph, "y") == pytest.approx(peak_signal_noise_ratio(clean, ours, data_range=1), abs=1e-3)
    expected = structural_similarity(
        clean, ours, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert ssim(image, photograph, "y") == pytest.approx(expected, abs=1e-4)


def test_a_change_of_colour_alone_is_not_seen_in_luma() -> None:
    clean = torch.full((3, 37, 31), 0.5)
    image = clean.clone()
    image[0] += 24.966 / 255  # as much more red as blue is taken away, by weight
    image[2] -= 65.481 / 255
    assert psnr(image, clean, "y") > psnr(image, clean) + 25


def test_psnr_of_a_known_difference() -> None:
    clean = torch.full((3, 37, 31), 0.4)  # 102 of 255
    assert psnr(clean + 10 / 255, clean) == pytest.approx(20 * math.log10(25.5), abs=1e-4)


def test_more_noise_is_worse_by_both_metrics(photograph: Tensor, seeded: Seeded) -> None:
    images = [noisy(photograph, sigma, seeded(0)) for sigma in (2, 5, 15, 40)]
    for metric in (psnr, ssim):
        values = [metric(image, photograph) for image in images]
        assert values == sorted(values, reverse=True)


def test_equal_images_have_finite_values_that_json_can_hold(photograph: Tensor) -> None:
    assert psnr(photograph, photograph) == HIGHEST_DB == 100
    assert ssim(photograph, photograph) == pytest.approx(1, abs=1e-6)
    json.dumps([psnr(photograph, photograph), ssim(photograph, photograph)], allow_nan=False)


def test_what_eight_bits_cannot_hold_makes_no_difference(photograph: Tensor) -> None:
    assert psnr(photograph + 0.4 / 255, photograph) == HIGHEST_DB
    assert psnr(torch.full((3, 20, 20), 1.7), torch.ones(3, 20, 20)) == HIGHEST_DB


def test_the_smallest_difference_of_a_large_image_lies_below_the_highest_value() -> None:
    clean = torch.zeros(3, 150, 150)
    image = clean.clone()
    image[0, 0, 0] = 1 / 255
    assert 90 < psnr(image, clean) < HIGHEST_DB

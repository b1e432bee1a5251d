"""The distortions do what defines each of them."""

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ml.distortions import (
    DISTORTIONS,
    LEVELS,
    MILD,
    MODERATE,
    SEVERE,
    blur,
    distort,
    down_up,
    gaussian_blur,
    gaussian_kernel,
    gaussian_noise,
    level_triples,
    mixed_at,
    noise,
    resize,
    uniform,
)
from ml.images import to_uint8

Seeded = Callable[[int], torch.Generator]

SIGMAS = st.floats(0.3, 5)


def test_the_default_distortions_are_the_papers_seven() -> None:
    assert list(DISTORTIONS) == ["bicubic", "aniso_bicubic", "noise", "blur", "mild", "moderate", "severe"]


@pytest.mark.parametrize("name", DISTORTIONS)
def test_every_distortion_keeps_the_size_and_gives_eight_bit_values_in_range(
    name: str, odd_image: Tensor, seeded
) -> None:
    for seed in range(4):
        distorted = distort(name, odd_image, seeded(seed))
        assert distorted.shape == odd_image.shape
        assert distorted.min() >= 0
        assert distorted.max() <= 1
        grey_levels = distorted * 255
        assert torch.equal(grey_levels, grey_levels.round())


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_same_generator_gives_the_same_distortion_and_the_input_stays_as_it_is(
    name: str, odd_image: Tensor, seeded
) -> None:
    before = odd_image.clone()
    assert torch.equal(distort(name, odd_image, seeded(7)), distort(name, odd_image, seeded(7)))
    assert torch.equal(odd_image, before)


@pytest.mark.parametrize("name", [name for name in DISTORTIONS if name != "bicubic"])
def test_another_seed_gives_another_distortion(name: str, odd_image: Tensor, seeded: Seeded) -> None:
    assert not torch.equal(distort(name, odd_image, seeded(1)), distort(name, odd_image, seeded(2)))


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
    sigmas = sorted(float((noise(flat, seeded(seed)) - 0.5).std() * 255) for seed in range(200))
    assert sigmas[-1] < 52
    assert sigmas[-1] > 47
    assert sigmas[0] < 3
    assert np.mean(sigmas) == pytest.approx(25, abs=3)


@given(sigma_x=SIGMAS, sigma_y=SIGMAS, angle=st.floats(0, math.pi))
@settings(max_examples=30, deadline=None)
def test_a_gaussian_kernel_sums_to_one_and_is_point_symmetric(sigma_x: float, sigma_y: float, angle: float) -> None:
    kernel = gaussian_kernel(sigma_x, sigma_y, angle)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-7)
    assert kernel.min() >= 0
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1


def test_the_angle_turns_the_kernel_from_x_towards_y() -> None:
    lying, standing = gaussian_kernel(3, 1, 0), gaussian_kernel(3, 1, math.pi / 2)
    grid = torch.arange(len(lying)) - len(lying) // 2
    variance_x = float((lying.sum(dim=0) * grid**2).sum())
    variance_y = float((lying.sum(dim=1) * grid**2).sum())
    assert variance_x == pytest.approx(9, rel=0.06)  # cut off at 3σ
    assert variance_y == pytest.approx(1, rel=0.06)
    assert torch.allclose(standing, lying.T, atol=1e-6)
    diagonal = gaussian_kernel(3, 1, math.pi / 4)
    assert float((diagonal * torch.outer(grid, grid)).sum()) > 1


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 5.0])
def test_blur_is_scipys_gaussian_filter(sigma: float, odd_image: Tensor) -> None:
    radius = math.ceil(3 * sigma)
    expected = [gaussian_filter(c, sigma, mode="nearest", radius=radius) for c in odd_image.double().numpy()]
    assert np.allclose(gaussian_blur(odd_image, sigma).numpy(), expected, atol=1e-5)


def test_blur_of_a_flat_image_changes_nothing_and_reaches_the_border() -> None:
    flat = torch.full((3, 37, 31), 0.3)
    assert torch.allclose(gaussian_blur(flat, 4.0), flat, atol=1e-6)


def test_more_blur_leaves_less_contrast(odd_image: Tensor) -> None:
    contrasts = [float(gaussian_blur(odd_image, sigma).std()) for sigma in (0, 0.5, 1, 2, 4)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert len(set(contrasts)) == 5


def test_level_zero_changes_nothing(odd_image: Tensor, seeded: Seeded) -> None:
    assert torch.equal(gaussian_blur(odd_image, 0), odd_image)
    assert torch.equal(mixed_at(odd_image, (0, 0, 0), seeded(0)), odd_image)


def test_the_strength_of_blur_is_drawn_up_to_5_pixels(odd_image: Tensor, seeded: Seeded) -> None:
    sigma = uniform(0, 5, seeded(4))
    assert torch.equal(blur(odd_image, seeded(4)), gaussian_blur(odd_image, sigma))


@pytest.mark.parametrize("level", [1, 4, 10])
def test_jpeg_level_is_pillows_quality_100_minus_9_levels(level: int, odd_image: Tensor, seeded: Seeded) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(to_uint8(odd_image).permute(1, 2, 0).numpy())
    image.save(buffer, "JPEG", quality=100 - 9 * level, subsampling="4:2:0")
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    assert torch.equal(to_uint8(mixed_at(odd_image, (0, 0, level), seeded(0))), expected)


def test_mixtures_blur_then_add_noise_then_compress(odd_image: Tensor, seeded: Seeded) -> None:
    by_hand = gaussian_noise(gaussian_blur(odd_image, 1.5), 20, seeded(3))
    assert torch.equal(mixed_at(odd_image, (3, 4, 0), seeded(3)), by_hand)
    compressed = mixed_at(by_hand, (0, 0, 2), seeded(0))
    assert torch.equal(mixed_at(odd_image, (3, 4, 2), seeded(3)), compressed)


@pytest.mark.parametrize(("sums", "low", "high"), [(MILD, 9, 11), (MODERATE, 12, 17), (SEVERE, 18, 20)])
def test_the_levels_of_a_mixture_add_up_to_rl_restores_range(sums: range, low: int, high: int) -> None:
    triples = level_triples(sums)
    expected = {(b, n, j) for b in range(11) for n in range(11) for j in range(11) if low <= b + n + j <= high}
    assert set(triples) == expected
    assert len(triples) == len(expected)
    assert list(LEVELS) == list(range(11))


def test_harder_mixtures_do_more_damage(photographs: dict[str, Tensor], seeded: Seeded) -> None:
    image = photographs["chelsea"][:, 50:114, 50:120] / 255

    def damage(name: str) -> float:
        return sum(float((distort(name, image, seeded(seed)) - image).square().mean()) for seed in range(80))

    assert damage("mild") < damage("moderate") < damage("severe")


@pytest.mark.parametrize("factor", [4, 8])
def test_down_up_keeps_size_and_flat_images(factor: int) -> None:
    flat = torch.full((3, 37, 31), 0.25)
    assert torch.allclose(down_up(flat, factor), flat, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (37, 31)])
def test_down_up_keeps_the_size_of_images_smaller_than_the_factor(size: tuple[int, int], seeded: Seeded) -> None:
    image = torch.rand(3, *size, generator=seeded(0))
    assert down_up(image, 8).shape == image.shape


def test_down_up_removes_what_is_finer_than_the_factor() -> None:
    stripes = (torch.arange(64) % 2).float().expand(3, 64, 64)
    assert float((down_up(stripes, 8) - 0.5).abs()[:, 8:-8, 8:-8].max()) < 0.02


@pytest.mark.parametrize(("height", "width"), [(9, 8), (74, 93)])
def test_resize_is_pillows_antialiased_bicubic(height: int, width: int, odd_image: Tensor) -> None:
    images = [Image.fromarray(channel.numpy()) for channel in odd_image]  # mode F
    expected = [np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images]
    assert np.allclose(resize(odd_image, height, width).numpy(), np.clip(expected, 0, 1), atol=1e-4)

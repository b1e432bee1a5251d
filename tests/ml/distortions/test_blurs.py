"""Blur: kernels that sum to one, their extent, and that the filter is the one that was meant."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve as scipys_convolve
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ml.chance import uniform
from ml.distortions import DISTORTIONS
from ml.distortions.blurs import convolve, disc_kernel, gaussian_blur, gaussian_kernel, motion_kernel

Seeded = Callable[[int], torch.Generator]

SIGMAS = st.floats(0.3, 5)
ANGLES = st.floats(0, math.pi)


def moments(kernel: Tensor) -> tuple[float, float, float]:
    """Variance along x, along y, and covariance."""
    grid = (torch.arange(len(kernel)) - len(kernel) // 2).double()
    kernel = kernel.double()
    return (
        float((kernel.sum(dim=0) * grid**2).sum()),
        float((kernel.sum(dim=1) * grid**2).sum()),
        float((kernel * torch.outer(grid, grid)).sum()),
    )


def is_a_centred_kernel(kernel: Tensor) -> bool:
    return bool(
        abs(float(kernel.sum()) - 1) < 1e-5
        and torch.allclose(kernel, kernel.flip(0, 1), atol=1e-6)
        and kernel.min() >= 0
        and kernel.shape[0] == kernel.shape[1]
        and kernel.shape[0] % 2 == 1
    )


@given(sigma_x=SIGMAS, sigma_y=SIGMAS, angle=ANGLES)
@settings(max_examples=30, deadline=None)
def test_a_gaussian_kernel_sums_to_one_and_is_point_symmetric(sigma_x: float, sigma_y: float, angle: float) -> None:
    assert is_a_centred_kernel(gaussian_kernel(sigma_x, sigma_y, angle))


@given(length=st.floats(1, 15), angle=ANGLES)
@settings(max_examples=30, deadline=None)
def test_a_motion_kernel_sums_to_one_and_is_as_long_as_the_movement(length: float, angle: float) -> None:
    kernel = motion_kernel(length, angle)
    assert is_a_centred_kernel(kernel)
    in_x, in_y, both = moments(kernel)
    segment = (length - 1) ** 2 / 12  # variance of a uniform segment; sharing with neighbours adds up to a quarter
    along = in_x * math.cos(angle) ** 2 + in_y * math.sin(angle) ** 2 + both * math.sin(2 * angle)
    across = in_x * math.sin(angle) ** 2 + in_y * math.cos(angle) ** 2 - both * math.sin(2 * angle)
    assert segment * 0.99 - 1e-4 <= along <= segment * 1.01 + 0.26
    assert -1e-4 <= across <= 0.26


@pytest.mark.parametrize("length", [3, 7, 15])
def test_movement_along_a_row_smears_over_as_many_pixels(length: int) -> None:
    kernel = motion_kernel(length, 0)
    row = kernel[len(kernel) // 2]
    assert torch.equal(kernel.sum(dim=0), row)  # nothing in other rows
    assert int((row > 0).sum()) == length
    assert torch.allclose(row[1:-1][row[1:-1] > 0], torch.tensor(1 / (length - 1)), atol=0.01)
    assert torch.allclose(motion_kernel(length, math.pi / 2), kernel.T, atol=1e-6)


@given(radius=st.floats(0.8, 6))
@example(radius=1.5390625)  # Its rim reaches a twenty-fifth of a pixel into the next.
@settings(max_examples=30, deadline=None)
def test_a_disc_kernel_sums_to_one_and_is_as_wide_as_its_radius(radius: float) -> None:
    kernel = disc_kernel(radius)
    assert is_a_centred_kernel(kernel)
    assert torch.allclose(kernel, kernel.T, atol=1e-7)
    in_x, in_y, both = moments(kernel)
    # Of a disc r²/4, and about 1/12 for gathering it in pixels.
    assert in_x == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.04, abs=0.08)
    assert in_y == pytest.approx(in_x, rel=1e-5)
    assert abs(both) < 1e-5
    grid = torch.arange(len(kernel)) - len(kernel) // 2
    away = torch.hypot(grid[:, None].double(), grid.double())
    assert (kernel[away > radius + math.sqrt(0.5)] == 0).all()
    inside = kernel[away < radius - math.sqrt(0.5)]
    assert torch.allclose(inside, torch.tensor(1 / (math.pi * radius**2)), rtol=0.06)


def test_no_movement_and_a_small_disc_are_no_blur(odd_image: Tensor) -> None:
    for kernel in (motion_kernel(1, 0.7), disc_kernel(0.5)):
        assert torch.allclose(convolve(odd_image, kernel), odd_image, atol=1e-6)


@pytest.mark.parametrize("kernel", [motion_kernel(7, 0.6), disc_kernel(2.3), gaussian_kernel(2, 0.8, 1)])
def test_convolution_is_scipys_with_the_edge_continued(kernel: Tensor, odd_image: Tensor) -> None:
    expected = [scipys_convolve(c, kernel.double().numpy(), mode="nearest") for c in odd_image.double().numpy()]
    assert np.allclose(convolve(odd_image, kernel).numpy(), expected, atol=1e-5)


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


def test_no_gaussian_blur_at_sigma_zero(odd_image: Tensor) -> None:
    assert torch.equal(gaussian_blur(odd_image, 0), odd_image)


@pytest.mark.parametrize("name", ["motion_blur", "defocus", "blur"])
def test_blur_keeps_flat_ground(name: str, seeded: Seeded) -> None:
    flat = torch.full((3, 37, 31), 0.3)
    assert torch.allclose(DISTORTIONS[name].at(flat, 0.8, seeded(0)), flat, atol=1e-5)


def test_the_strength_of_blur_is_drawn_up_to_5_pixels(odd_image: Tensor, seeded: Seeded) -> None:
    sigma = uniform(0, 5, seeded(4))
    assert torch.equal(DISTORTIONS["blur"].apply(odd_image, seeded(4)), gaussian_blur(odd_image, sigma))

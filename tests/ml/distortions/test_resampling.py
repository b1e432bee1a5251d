"""Lost resolution: what is finer than the new grid is gone, what is coarser stays."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ml.distortions import DISTORTIONS
from ml.distortions.resampling import down_up, lanczos_matrix, low_pass, resize

Seeded = Callable[[int], torch.Generator]


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


def grating(cycles_per_pixel: float, side: int = 96) -> Tensor:
    """A sinusoidal grating along x."""
    wave = 0.5 + 0.4 * torch.sin(2 * math.pi * cycles_per_pixel * torch.arange(side))
    return wave.expand(3, side, side)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0, 4.0])
def test_a_low_pass_removes_frequencies_above_nyquist_and_keeps_those_well_below(factor: float) -> None:
    nyquist = 0.5 / factor

    def left(image: Tensor) -> float:
        middle = low_pass(image, factor)[:, 24:-24, 24:-24]
        return float(middle.std() / image[:, 24:-24, 24:-24].std())

    for above in (1.35, 1.8):
        if above * nyquist < 0.5:
            assert left(grating(above * nyquist)) < 0.06
            assert left(grating(above * nyquist).transpose(1, 2)) < 0.06
    assert left(grating(0.5 * nyquist)) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("factor", [1.4, 2.0, 4.0])
def test_a_low_pass_leaves_no_more_energy_above_nyquist_than_its_filter_leaks(factor: float, seeded: Seeded) -> None:
    white = torch.rand(3, 129, 121, generator=seeded(0)) - 0.5

    def share_above(image: Tensor) -> float:
        spectrum = torch.fft.fft2(image - image.mean(dim=(1, 2), keepdim=True)).abs().square()
        down, across = torch.fft.fftfreq(129).abs(), torch.fft.fftfreq(121).abs()
        above = torch.maximum(down[:, None], across) > 1.25 * 0.5 / factor
        return float(spectrum[:, above].sum() / spectrum.sum())

    before, after = share_above(white), share_above(low_pass(white, factor))
    assert after < 0.03
    assert after < 0.05 * before


@pytest.mark.parametrize(("old", "new"), [(37, 18), (31, 31), (40, 97), (5, 1)])
def test_the_lanczos_matrix_is_pillows_lanczos_filter(old: int, new: int, seeded: Seeded) -> None:
    line = torch.rand(1, old, generator=seeded(0))
    expected = np.asarray(Image.fromarray(line.numpy()).resize((new, 1), Image.Resampling.LANCZOS))
    assert np.allclose((lanczos_matrix(old, new) @ line[0]).numpy(), expected[0], atol=1e-4)


@pytest.mark.parametrize("name", ["bicubic", "aniso_bicubic", "downscale_antialias"])
def test_lost_resolution_keeps_flat_ground(name: str, seeded: Seeded) -> None:
    flat = torch.full((3, 37, 31), 0.3)
    assert torch.allclose(DISTORTIONS[name].at(flat, 0.9, seeded(0)), flat, atol=1e-5)


def test_at_full_strength_bicubic_is_the_papers_factor_of_eight(odd_image: Tensor, seeded: Seeded) -> None:
    assert torch.equal(DISTORTIONS["bicubic"].apply(odd_image, seeded(0)), down_up(odd_image, 8))

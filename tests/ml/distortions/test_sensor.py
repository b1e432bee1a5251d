"""The colour filter array keeps what it measures, and is filled in as published."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app import virtual_camera
from ml.distortions import DISTORTIONS
from ml.distortions.sensor import demosaiced, sites

Seeded = Callable[[int], torch.Generator]
BEGINNINGS = [(0, 0), (0, 1), (1, 0), (1, 1)]


@given(
    height=st.integers(3, 40), width=st.integers(3, 40), start=st.sampled_from(BEGINNINGS), seed=st.integers(0, 1000)
)
@settings(max_examples=30, deadline=None)
def test_measured_values_are_kept(height: int, width: int, start: tuple[int, int], seed: int) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    measured = sites(height, width, *start).bool()
    assert torch.equal(demosaiced(image, *start)[measured], image[measured])


@pytest.mark.parametrize("start", BEGINNINGS)
def test_every_pixel_measures_one_colour_and_of_four_two_green(start: tuple[int, int]) -> None:
    measured = sites(38, 32, *start)
    assert torch.equal(measured.sum(dim=0), torch.ones(38, 32))
    assert measured.mean(dim=(1, 2)).tolist() == [0.25, 0.5, 0.25]
    assert float(measured[0, start[0], start[1]]) == 1


def test_it_interpolates_as_the_virtual_camera_does(odd_image: Tensor) -> None:
    """Written independently, with SciPy, for a side of the program that has no torch."""
    light = odd_image.permute(1, 2, 0).double().numpy()
    expected = virtual_camera.demosaic(virtual_camera.mosaic(light))
    assert np.allclose(demosaiced(odd_image, 0, 0).permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("start", BEGINNINGS)
def test_flat_ground_and_grey_ramps_stay(start: tuple[int, int]) -> None:
    flat = torch.tensor([0.2, 0.5, 0.7])[:, None, None].expand(3, 37, 31)
    assert torch.allclose(demosaiced(flat, *start), flat, atol=1e-6)
    ramp = torch.linspace(0.1, 0.9, 31).expand(3, 37, 31)
    assert torch.allclose(demosaiced(ramp, *start)[:, 2:-2, 2:-2], ramp[:, 2:-2, 2:-2], atol=1e-6)


def test_below_full_strength_measured_values_are_kept_too(odd_image: Tensor, seeded: Seeded) -> None:
    half = DISTORTIONS["bayer"].at(odd_image, 0.5, seeded(0))
    kept = torch.isclose(half, odd_image, atol=1e-7)
    assert float(kept.float().mean()) >= 1 / 3
    full = DISTORTIONS["bayer"].at(odd_image, 1.0, seeded(0))
    assert torch.allclose(half, (odd_image + full) / 2, atol=1e-6)

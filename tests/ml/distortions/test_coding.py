"""What is lost in storage: JPEG as encoders do it, luma kept when colour is coarse, so and so many levels."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2ycbcr
from torch import Tensor

from ml.distortions import DISTORTIONS
from ml.distortions.coding import coarse_colour, quantized
from ml.distortions.jpeg_arithmetic import YCBCR
from ml.images import from_uint8, to_uint8

Seeded = Callable[[int], torch.Generator]


def planes_of(image: Tensor) -> Tensor:
    return torch.einsum("yc,chw->yhw", YCBCR, image.double())


@pytest.mark.parametrize(("strength", "quality"), [(0.1, 91), (0.5, 55), (1.0, 10)])
def test_jpeg_is_pillows_at_100_minus_90_times_the_strength(
    strength: float, quality: int, odd_image: Tensor, seeded: Seeded
) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(to_uint8(odd_image).permute(1, 2, 0).numpy())
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    assert torch.equal(to_uint8(DISTORTIONS["jpeg"].at(odd_image, strength, seeded(0))), expected)


def test_the_colour_planes_are_those_of_jpeg(odd_image: Tensor) -> None:
    """scikit-image has the same planes in the narrow range of BT.601, and Pillow in whole numbers."""
    ours = planes_of(odd_image).permute(1, 2, 0).numpy()
    narrow = rgb2ycbcr(odd_image.permute(1, 2, 0).double().numpy())
    assert np.allclose(ours[..., 0], (narrow[..., 0] - 16) / 219, atol=1e-3)
    assert np.allclose(ours[..., 1:], (narrow[..., 1:] - 128) / 224, atol=1e-3)
    eight_bits = to_uint8(odd_image)
    pillows = np.asarray(Image.fromarray(eight_bits.permute(1, 2, 0).numpy()).convert("YCbCr")).astype(float)
    exact = planes_of(from_uint8(eight_bits)).permute(1, 2, 0).numpy() * 255 + [0, 128, 128]
    assert np.abs(pillows - exact).max() <= 1


@given(factor=st.floats(1, 9), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_coarse_colour_leaves_luma_untouched(factor: float, seed: int) -> None:
    image = torch.rand(3, 37, 31, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(planes_of(coarse_colour(image, factor))[0], planes_of(image)[0], atol=1e-5)


def test_coarse_colour_averages_colour(odd_image: Tensor) -> None:
    even = odd_image[:, :36, :30]
    colour, coarse = planes_of(even)[1:], planes_of(coarse_colour(even, 2))[1:]
    assert torch.allclose(coarse.mean(dim=(1, 2)), colour.mean(dim=(1, 2)), atol=0.01)
    assert float(coarse.diff(dim=2).abs().mean()) < 0.5 * float(colour.diff(dim=2).abs().mean())


def test_grey_images_have_no_colour_to_lose(odd_image: Tensor) -> None:
    grey = odd_image[:1].expand(3, -1, -1)
    assert torch.allclose(coarse_colour(grey, 4), grey, atol=1e-5)


@given(levels=st.integers(2, 256), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_quantizing_leaves_so_many_levels_and_moves_no_value_further_than_half_a_step(levels: int, seed: int) -> None:
    ramp = torch.linspace(0, 1, 3 * 40 * 40).reshape(3, 40, 40)
    few = quantized(ramp, levels)
    assert len(few.unique()) == levels
    assert float(few.min()) == 0
    assert float(few.max()) == 1
    assert float((few - ramp).abs().max()) <= 0.5 / (levels - 1) + 1e-6
    image = torch.rand(3, 37, 31, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(quantized(quantized(image, levels), levels), quantized(image, levels))


@pytest.mark.parametrize(("strength", "levels"), [(1 / 3, 64), (0.5, 32), (5 / 6, 8), (1.0, 4)])
def test_the_strength_of_quantizing_is_in_bits(strength: float, levels: int, seeded: Seeded) -> None:
    ramp = torch.linspace(0, 1, 3 * 40 * 40).reshape(3, 40, 40)
    assert len(DISTORTIONS["quantize"].at(ramp, strength, seeded(0)).unique()) == levels

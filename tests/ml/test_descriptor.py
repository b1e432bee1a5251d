"""What a single image says about its distortion."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.descriptor import BANDS, VALUES, describe, describe_each
from ml.distortions.blurs import gaussian_blur
from ml.distortions.noises import gaussian_noise
from ml.ensemble import transform
from ml.images import from_uint8, jpeg
from ml.windows import windows_of

Seeded = Callable[[int], torch.Generator]
BLOCK_BORDERS = -2


@pytest.fixture
def photograph(photographs: dict[str, Tensor]) -> Tensor:
    """Shrunk, since the bundled photographs are themselves compressed and a little soft."""
    large = from_uint8(photographs["astronaut"])
    return torch.nn.functional.interpolate(large[None], scale_factor=0.6, mode="bicubic", antialias=True)[0].clamp(0, 1)


def values(image: Tensor) -> Tensor:
    described = describe(windows_of(image))
    assert described is not None
    return described.values


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 63), (63, 64)])
def test_tiny_images_are_not_described(size: tuple[int, int]) -> None:
    assert describe(windows_of(torch.rand(3, *size))) is None


@settings(deadline=None, max_examples=25)
@given(height=st.integers(64, 300), width=st.integers(64, 300), level=st.sampled_from([0.0, 0.3, 1.0]))
def test_every_image_of_64_pixels_and_more_has_finite_values(height: int, width: int, level: float) -> None:
    """A flat one too, which has no power in any band."""
    generator = torch.Generator().manual_seed(height)
    for image in (torch.full((3, height, width), level), torch.rand(3, height, width, generator=generator)):
        described = describe(windows_of(image))
        assert described is not None
        assert described.values.isfinite().all()
        assert described.values.shape == (VALUES,)


@pytest.mark.parametrize("sigma_255", [3, 10, 25])
def test_the_quiet_bands_are_the_variance_of_white_noise(sigma_255: float, seeded: Seeded) -> None:
    """By Parseval: light is (R + 2G + B)/4, so its variance is 3/8 of a channel's. By the middle bands the quiet blocks
    are chosen, so there it must be less.
    """
    flat = gaussian_noise(torch.full((3, 512, 512), 0.5), sigma_255, seeded(1))
    expected = torch.tensor(sigma_255**2 * 3 / 8 + 1 / 12).log10()
    bands = values(flat)[:BANDS]
    assert torch.allclose(bands[4:], expected.expand(BANDS - 4), atol=0.05)
    assert (bands[1:4] < expected).all()


@given(index=st.integers(0, 7))
@settings(deadline=None, max_examples=8)
def test_turning_and_mirroring_a_window_changes_nothing(index: int) -> None:
    image = jpeg(torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(2)), 60)
    turned = describe_each(transform(image, index)[None])
    assert torch.allclose(turned, describe_each(image[None]), atol=1e-4)


def test_stronger_compression_has_higher_block_borders(photograph: Tensor) -> None:
    borders = [
        float(values(image)[BLOCK_BORDERS]) for image in (photograph, jpeg(photograph, 60), jpeg(photograph, 15))
    ]
    assert borders == sorted(borders)
    assert borders[2] - borders[0] > 0.3


@pytest.mark.parametrize("shift", [1, 3, 6])
def test_block_borders_are_found_wherever_the_grid_begins(photograph: Tensor, shift: int) -> None:
    compressed = jpeg(photograph, 15)
    found = values(compressed[:, shift:, shift:])[BLOCK_BORDERS]
    assert float(found) == pytest.approx(float(values(compressed)[BLOCK_BORDERS]), abs=0.08)


def test_blur_takes_from_the_fine_bands_and_noise_gives_to_them(photograph: Tensor, seeded: Seeded) -> None:
    plain, blurred = values(photograph), values(gaussian_blur(photograph, 1.5))
    noisy = values(gaussian_noise(photograph, 10, seeded(3)))
    fine_of_busy = slice(BANDS + 2, 2 * BANDS - 1)
    assert (blurred[fine_of_busy] < plain[fine_of_busy] - 0.3).all()
    assert (noisy[2:BANDS] > plain[2:BANDS]).all()


def test_a_deep_file_is_described_as_its_8_bit_version(photograph: Tensor, seeded: Seeded) -> None:
    fine = (photograph + (torch.rand(photograph.shape, generator=seeded(4)) - 0.5) * 0.9 / 255).clamp(0, 1)
    rounded = (fine * 255).round() / 255
    assert not torch.equal(fine, rounded)
    assert torch.equal(values(fine), values(rounded))


def test_grey_images_have_no_colour(photograph: Tensor) -> None:
    grey = photograph.mean(dim=0, keepdim=True).expand(3, -1, -1)
    colour = values(grey)[2 * BANDS - 1 : 2 * BANDS + 3]
    assert torch.allclose(colour, torch.tensor(1 / 12).log10().expand(4), atol=1e-5)

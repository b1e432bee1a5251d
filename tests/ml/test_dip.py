"""Deep image prior, per image."""

import pytest
import torch
from torch import Tensor

from ml.dip import DipSchedule, deep_image_prior
from ml.metrics import psnr

SHORT = DipSchedule(steps=3, width=8, scales=2)


@pytest.fixture
def noisy(photographs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A part of a photograph, clean and with noise of σ 40 (of 255)."""
    clean = photographs["astronaut"][:, 20:92, 190:254].float() / 255
    noise = 40 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean, (clean + noise).clamp(0, 1)


def test_it_takes_noise_away_within_seconds(noisy: tuple[Tensor, Tensor]) -> None:
    clean, distorted = noisy
    restored = deep_image_prior(distorted, DipSchedule(steps=150, width=16, scales=3, smoothing=0.95), seed=0)
    assert psnr(restored, clean) > psnr(distorted, clean) + 2


@pytest.mark.parametrize("size", [(37, 31), (8, 65), (64, 64)])
def test_any_size_comes_back_within_range(size: tuple[int, int]) -> None:
    restored = deep_image_prior(torch.rand(3, *size, generator=torch.Generator().manual_seed(1)), SHORT, seed=0)
    assert restored.shape == (3, *size)
    assert 0 <= float(restored.min()) <= float(restored.max()) <= 1


def test_the_same_seed_gives_the_same_image_and_the_global_random_state_is_left_alone(odd_image: Tensor) -> None:
    torch.manual_seed(5)
    first = deep_image_prior(odd_image, SHORT, seed=3)
    after = torch.rand(1)
    assert torch.equal(first, deep_image_prior(odd_image, SHORT, seed=3))
    assert not torch.equal(first, deep_image_prior(odd_image, SHORT, seed=4))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_one_step_gives_the_first_result_not_a_fraction_of_it(odd_image: Tensor) -> None:
    """The running mean is corrected for having begun at zero."""
    smooth, plain = (deep_image_prior(odd_image, DipSchedule(1, 8, 2, smoothing=s), seed=0) for s in (0.99, 0.0))
    assert torch.allclose(smooth, plain, atol=1e-5)

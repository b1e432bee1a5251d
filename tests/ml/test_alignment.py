"""PSNR that forgives a shift."""

from collections.abc import Callable

import pytest
import torch

from ml.alignment import aligned_psnr, shifted
from ml.dead_leaves import dead_leaves
from ml.metrics import psnr

Seeded = Callable[[int], torch.Generator]


@pytest.fixture(name="scene")
def smooth_scene(seeded: Seeded) -> torch.Tensor:
    """Odd-sized, and without detail finer than two pixels, which no shift by a fraction can keep in 8 bits."""
    leaves = dead_leaves(96, seeded(0))
    spectrum = torch.fft.rfft2(leaves)
    keep = (torch.fft.fftfreq(96).abs()[:, None] < 0.2) & (torch.fft.rfftfreq(96)[None] < 0.2)
    smooth: torch.Tensor = torch.fft.irfft2(spectrum * keep, s=(96, 96))
    return smooth.clamp(0, 1)


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (1.0, -2.0), (0.5, 0.3), (-1.3, 0.8)])
def test_a_shift_is_forgiven(scene: torch.Tensor, y: float, x: float) -> None:
    moved = shifted(scene, y, x)[:, 8:81, 8:75].clamp(0, 1)
    still = scene[:, 8:81, 8:75]
    assert aligned_psnr(moved, still) > (35 if (y, x) != (0, 0) else 99)
    if (y, x) != (0, 0):
        assert psnr(moved, still) < aligned_psnr(moved, still) - 5


@pytest.mark.parametrize("x", [1.4, 1.5, 1.55, 1.6, 1.7, 1.8, 1.9, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_fractions_are_forgiven_up_to_two_pixels(scene: torch.Tensor, x: float, sign: int) -> None:
    still = scene[:, 8:81, 8:75]
    for down, right in ((0, sign * x), (sign * x, 0), (sign * x, -x)):
        moved = shifted(scene, down, right)[:, 8:81, 8:75].clamp(0, 1)
        assert aligned_psnr(moved, still) > 35, (down, right)


def test_no_shift_beyond_two_pixels_is_undone(scene: torch.Tensor) -> None:
    still, near, far = (shifted(scene, 0, x)[:, 8:81, 8:75].clamp(0, 1) for x in (0, 1, 3))
    assert aligned_psnr(far, still) == pytest.approx(psnr(near[:, 4:-4, 4:-4], still[:, 4:-4, 4:-4]), abs=1)


def test_it_is_never_below_the_strict_psnr(seeded: Seeded) -> None:
    for seed in range(5):
        one, other = torch.rand(2, 3, 37, 31, generator=seeded(seed))
        assert aligned_psnr(one, other) >= psnr(one, other)


def test_what_is_no_shift_is_not_forgiven(scene: torch.Tensor) -> None:
    darker = scene * 0.8
    assert aligned_psnr(darker, scene) == pytest.approx(psnr(darker, scene), abs=0.7)


def test_whole_pixels_are_moved_exactly(scene: torch.Tensor) -> None:
    assert torch.allclose(shifted(scene, 3, -2), scene.roll((3, -2), (1, 2)), atol=1e-5)

"""At full strength every distortion does as much as its documentation says, and what it draws covers its range."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ml.chance import Source, uniform
from ml.distortions import DISTORTIONS, blurs, mixtures, resampling, sharpening
from ml.distortions.blurs import convolve, disc_kernel, gaussian_blur, gaussian_kernel, motion_kernel
from ml.distortions.coding import coarse_colour
from ml.distortions.noises import gaussian_noise, shot_noise, speckle_noise
from ml.distortions.resampling import down_up, low_pass
from ml.distortions.sensor import demosaiced
from ml.distortions.sharpening import unsharp_mask

Seeded = Callable[[int], torch.Generator]
Drawn = Callable[[str, ModuleType, str], list[tuple[Any, ...]]]
DRAWS = 150


def two_widths_and_a_factor_of_four(image: Tensor, source: Source) -> Tensor:
    kernel = gaussian_kernel(uniform(0.5, 4, source), uniform(0.5, 4, source), uniform(0, math.pi, source))  # type: ignore[arg-type]  # numbers, from a generator
    return down_up(convolve(image, kernel), 4)


def a_movement_by_fourteen_pixels(image: Tensor, source: Source) -> Tensor:
    return convolve(image, motion_kernel(15, uniform(0, math.pi, source)))  # type: ignore[arg-type]  # a number


AT_MOST: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "bicubic": lambda image, source: down_up(image, 8),
    "aniso_bicubic": two_widths_and_a_factor_of_four,
    "noise": lambda image, source: gaussian_noise(image, 50, source),
    "blur": lambda image, source: gaussian_blur(image, 5),
    "poisson": lambda image, source: shot_noise(image, (255 / 50) ** 2, source),
    "motion_blur": a_movement_by_fourteen_pixels,
    "defocus": lambda image, source: convolve(image, disc_kernel(5)),
    "chroma_subsampling": lambda image, source: coarse_colour(image, 8),
    "sharpen_halo": lambda image, source: unsharp_mask(image, 3, uniform(0.7, 2.5, source)),
    "downscale_antialias": lambda image, source: low_pass(image, 4),
    "speckle": lambda image, source: speckle_noise(image, 0.4, source),
}
ELSEWHERE = {"jpeg", "quantize"}  # test_coding.py
BELOW = {"mild", "moderate", "severe", "bayer"}


def test_no_distortion_is_missing() -> None:
    assert AT_MOST.keys() | ELSEWHERE | BELOW == DISTORTIONS.keys()


@pytest.mark.parametrize("name", AT_MOST)
def test_at_full_strength_it_does_what_is_documented(name: str, odd_image: Tensor, seeded: Seeded) -> None:
    for seed in range(3):
        expected = AT_MOST[name](odd_image, seeded(seed))
        assert torch.equal(DISTORTIONS[name].at(odd_image, 1.0, seeded(seed)), expected)


def test_the_filter_array_begins_at_any_of_its_four_sites(odd_image: Tensor, seeded: Seeded) -> None:
    begun = [demosaiced(odd_image, top, left) for top in (0, 1) for left in (0, 1)]
    seen = set()
    for seed in range(20):
        behind = DISTORTIONS["bayer"].at(odd_image, 1.0, seeded(seed))
        (site,) = (place for place, each in enumerate(begun) if torch.allclose(behind, each, atol=1e-6))
        seen.add(site)
    assert seen == {0, 1, 2, 3}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """What a distortion gives to one of the functions that it is made of, in many draws at full strength."""

    def draw(name: str, module: ModuleType, function: str) -> list[tuple[Any, ...]]:
        original, seen = getattr(module, function), []

        def keep(*amounts: Any) -> Tensor:
            seen.append(amounts)
            result: Tensor = original(*amounts)
            return result

        monkeypatch.setattr(module, function, keep)
        small = torch.full((3, 5, 4), 0.5)
        for seed in range(DRAWS):
            DISTORTIONS[name].at(small, 1.0, torch.Generator().manual_seed(seed))
        return seen

    return draw


def covers(values: tuple[float, ...], low: float, high: float) -> bool:
    """Whether they lie in the range and reach within a twentieth of either end."""
    near = (high - low) / 20
    return low <= min(values) < low + near and high - near < max(values) <= high


def test_both_widths_of_an_anisotropic_blur_are_drawn_from_half_a_pixel_to_four(drawn: Drawn) -> None:
    sigma_x, sigma_y, angle = zip(*drawn("aniso_bicubic", resampling, "gaussian_kernel"), strict=True)
    assert covers(sigma_x, 0.5, 4)
    assert covers(sigma_y, 0.5, 4)
    assert covers(angle, 0, math.pi)
    assert abs(float(torch.corrcoef(torch.tensor([sigma_x, sigma_y]))[0, 1])) < 0.3  # Each by itself.


def test_movement_goes_in_every_direction(drawn: Drawn) -> None:
    lengths, angles = zip(*drawn("motion_blur", blurs, "motion_kernel"), strict=True)
    assert set(lengths) == {15}
    assert covers(angles, 0, math.pi)


def test_halos_are_of_every_documented_width(drawn: Drawn) -> None:
    _, sigmas = zip(*drawn("sharpen_halo", sharpening, "gaussian_blur"), strict=True)
    assert covers(sigmas, 0.7, 2.5)


@pytest.mark.parametrize(("name", "low", "high"), [("mild", 9, 11), ("moderate", 12, 17), ("severe", 18, 20)])
def test_the_levels_of_the_papers_mixtures_are_those_of_their_names(
    name: str, low: int, high: int, monkeypatch: pytest.MonkeyPatch, seeded: Seeded
) -> None:
    sums = []

    def keep(image: Tensor, levels: tuple[float, float, float], source: Source) -> Tensor:
        sums.append(sum(levels))
        return image

    monkeypatch.setattr(mixtures, "mixed_at", keep)
    for seed in range(DRAWS):
        DISTORTIONS[name].apply(torch.zeros(3, 1, 1), seeded(seed))
    assert set(sums) == set(range(low, high + 1))

"""What every known distortion has to be."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.chance import uniform
from ml.distortions import DISTORTIONS, PAPERS, distort
from ml.images import from_uint8

Seeded = Callable[[int], torch.Generator]

ALWAYS_THE_SAME = {"bicubic"}
FOUR_WAYS = {"bayer"}  # one for each beginning of the pattern
NOISY = {"noise", "poisson", "speckle", "mild", "moderate", "severe"}


def test_the_papers_seven_come_first_and_ten_more_follow() -> None:
    assert PAPERS == ("bicubic", "aniso_bicubic", "noise", "blur", "mild", "moderate", "severe")
    assert list(DISTORTIONS)[:7] == list(PAPERS)
    assert len(DISTORTIONS) == 17
    words = {distortion.words for distortion in DISTORTIONS.values()}
    assert len(words) == 17


@pytest.mark.parametrize("name", DISTORTIONS)
def test_every_distortion_keeps_the_size_and_gives_eight_bit_values_in_range(
    name: str, odd_image: Tensor, seeded: Seeded
) -> None:
    for seed in range(4):
        distorted = distort(name, odd_image, seeded(seed))
        assert distorted.shape == odd_image.shape
        assert distorted.min() >= 0
        assert distorted.max() <= 1
        grey_levels = distorted * 255
        assert torch.equal(grey_levels, grey_levels.round())


@pytest.mark.parametrize("name", DISTORTIONS)
@given(height=st.integers(3, 41), width=st.integers(3, 41), strength=st.floats(0, 1), seed=st.integers(0, 2**31))
@settings(max_examples=12, deadline=None)
def test_any_size_and_strength_gives_finite_values_of_the_same_shape(
    name: str, height: int, width: int, strength: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, height, width, generator=generator)
    distorted = DISTORTIONS[name].at(image, strength, generator)
    assert distorted.shape == image.shape
    assert distorted.dtype == torch.float32
    assert torch.isfinite(distorted).all()


@pytest.mark.parametrize("name", DISTORTIONS)
def test_strength_zero_is_the_identity(name: str, odd_image: Tensor, seeded: Seeded) -> None:
    assert torch.equal(DISTORTIONS[name].at(odd_image, 0.0, seeded(0)), odd_image)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_same_generator_gives_the_same_distortion_and_the_input_stays_as_it_is(
    name: str, odd_image: Tensor, seeded: Seeded
) -> None:
    before = odd_image.clone()
    assert torch.equal(distort(name, odd_image, seeded(7)), distort(name, odd_image, seeded(7)))
    assert torch.equal(odd_image, before)


@pytest.mark.parametrize("name", [name for name in DISTORTIONS if name not in ALWAYS_THE_SAME])
def test_another_seed_gives_another_distortion(name: str, odd_image: Tensor, seeded: Seeded) -> None:
    results = [distort(name, odd_image, seeded(seed)) for seed in range(12)]
    different = {tuple(result.flatten().tolist()) for result in results}
    assert len(different) == 4 if name in FOUR_WAYS else len(different) > 6  # Sizes are whole numbers.


@pytest.mark.parametrize("name", [name for name in DISTORTIONS if name not in NOISY])
def test_images_of_a_batch_are_distorted_as_each_alone_is(name: str, seeded: Seeded) -> None:
    batch = torch.rand(2, 3, 37, 31, generator=seeded(1))
    together = DISTORTIONS[name].at(batch, 0.7, seeded(2))
    alone = torch.stack([DISTORTIONS[name].at(image, 0.7, seeded(2)) for image in batch])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", sorted(NOISY))
def test_images_of_a_batch_get_independent_noise(name: str, seeded: Seeded) -> None:
    batch = torch.full((2, 3, 37, 31), 0.5)
    one, other = DISTORTIONS[name].at(batch, 1.0, seeded(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_stronger_distortion_does_more_damage(name: str, photographs: dict[str, Tensor], seeded: Seeded) -> None:
    image = from_uint8(photographs["chelsea"][:, 50:114, 50:120])

    def damage(strength: float) -> float:
        distorted = DISTORTIONS[name].at(image, strength, seeded(3)).clamp(0, 1)
        return float((distorted - image).square().mean())

    damages = [damage(strength) for strength in (0, 0.3, 0.6, 1)]
    assert damages == sorted(damages)
    assert len(set(damages)) == 4


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_drawn_distortion_is_one_of_the_strengths_that_the_table_names(
    name: str, odd_image: Tensor, seeded: Seeded
) -> None:
    distortion = DISTORTIONS[name]
    assert 0 <= distortion.weakest <= distortion.strongest == 1
    generator = seeded(4)
    fixed = distortion.weakest == distortion.strongest
    strength = 1.0 if fixed else uniform(distortion.weakest, 1, generator)
    assert torch.equal(distortion.apply(odd_image, seeded(4)), distortion.at(odd_image, strength, generator))

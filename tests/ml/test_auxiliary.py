"""Samples of the auxiliary tasks: crops, augmentation, and distortions of whole batches."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ml.auxiliary import AuxiliaryBatch, auxiliary_batch, distorted_crops, textured_crops
from ml.chance import Chance, EachItsOwn, Together, chance_of
from ml.distortions import DISTORTIONS, PAPERS
from ml.images import from_uint8
from ml.sampling import generator_for

Seeded = Callable[[int], torch.Generator]
CPU = torch.device("cpu")


def together(size: int, seed: int = 0) -> Together:
    """Numbers as an accelerator draws them, on the CPU."""
    return Together(size, torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1))


def own(size: int, seed: int = 0) -> EachItsOwn:
    return EachItsOwn([generator_for(seed, "own", sample) for sample in range(size)])


either = pytest.mark.parametrize("drawn", [own, together])
Draw = Callable[..., Chance]


def test_batches_hold_crops_of_every_task_at_the_asked_size(photographs: dict[str, Tensor], seeded: Seeded) -> None:
    batch = auxiliary_batch(
        list(photographs.values()), list(PAPERS), 24, EachItsOwn([seeded(sample) for sample in range(60)])
    )
    assert batch.clean.shape == batch.distorted.shape == (60, 3, 24, 24)
    assert set(batch.task.tolist()) == set(range(7))
    assert (batch.clean != batch.distorted).flatten(1).any(dim=1).all()


def test_halves_are_the_first_samples_and_the_others(seeded: Seeded) -> None:
    clean, distorted = torch.rand(2, 6, 3, 5, 4, generator=seeded(0))
    task = torch.tensor([4, 2, 0, 1, 3, 5])
    for half, part in zip(AuxiliaryBatch(clean, distorted, task).halves(), (slice(3), slice(3, 6)), strict=True):
        assert torch.equal(half.clean, clean[part])
        assert torch.equal(half.distorted, distorted[part])
        assert torch.equal(half.task, task[part])


def test_each_sample_is_distorted_by_the_task_it_is_labelled_with(seeded: Seeded) -> None:
    """On a flat image noise shows as variance, and blur as nothing."""
    flat = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    batch = auxiliary_batch([flat], ["blur", "noise"], 32, EachItsOwn([seeded(sample) for sample in range(24)]))
    changed = (batch.distorted - batch.clean).flatten(1).std(dim=1)
    assert (changed[batch.task == 0] < 1e-6).all()
    assert (changed[batch.task == 1] > 1e-3).all()


def test_clean_and_distorted_crops_lie_over_each_other(photographs: dict[str, Tensor], seeded: Seeded) -> None:
    """Augmentation turns both alike: the pair fits better than with any other orientation."""
    batch = auxiliary_batch(
        [photographs["astronaut"]], ["mild"], 32, EachItsOwn([seeded(sample) for sample in range(12)])
    )
    for clean, distorted in zip(batch.clean, batch.distorted, strict=True):
        aligned = (clean - distorted).abs().mean()
        assert all(aligned < (clean - torch.rot90(distorted, turn, (1, 2))).abs().mean() for turn in (1, 2, 3))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_batch_is_distorted_as_each_image_alone_is(name: str, photographs: dict[str, Tensor]) -> None:
    """With the same numbers: within rounding, which 8 bits may show as one level."""
    images = from_uint8(textured_crops(list(photographs.values()) * 2, 75, own(8), tries=1))
    batch = DISTORTIONS[name].apply(images, own(8, seed=1))
    alone = [DISTORTIONS[name].apply(each, generator_for(1, "own", place)) for place, each in enumerate(images)]
    assert (batch - torch.stack(alone)).abs().max() < 1.01 / 255
    assert (batch - torch.stack(alone)).abs().mean() < 0.01 / 255


@pytest.mark.parametrize("name", DISTORTIONS)
@either
def test_images_of_a_batch_have_strengths_of_their_own(drawn: Draw, name: str, photographs: dict[str, Tensor]) -> None:
    image = from_uint8(photographs["astronaut"][:, 100:175, 180:255])
    batch = DISTORTIONS[name].apply(image.expand(6, -1, -1, -1).contiguous(), drawn(6))
    differ = [not torch.equal(one, other) for one, other in itertools.pairwise(batch)]
    assert not any(differ) if name == "bicubic" else any(differ)  # As Table 4 has it, bicubic is always the same.


@pytest.mark.parametrize("name", DISTORTIONS)
def test_what_an_accelerator_would_draw_does_as_much_damage(name: str, photographs: dict[str, Tensor]) -> None:
    """In the mean over many samples, whose strengths and noise are drawn otherwise."""
    images = list(photographs.values())

    def damage(chance: Chance) -> float:
        clean, distorted = distorted_crops(images, [name] * chance.size, 32, chance, tries=1)
        return float((clean - distorted).square().mean(dim=(1, 2, 3)).sqrt().mean())

    assert damage(together(160)) == pytest.approx(damage(own(160)), rel=0.2)


@either
def test_a_batch_can_be_drawn_again(drawn: Draw, photographs: dict[str, Tensor]) -> None:
    images, tasks = list(photographs.values()), list(DISTORTIONS)
    first, again, other = (auxiliary_batch(images, tasks, 24, drawn(20, seed)) for seed in (1, 1, 2))
    assert torch.equal(first.distorted, again.distorted)
    assert torch.equal(first.task, again.task)
    assert not torch.equal(first.clean, other.clean)


def test_on_the_cpu_a_sample_is_the_same_whoever_draws_the_others(photographs: dict[str, Tensor]) -> None:
    images, tasks = list(photographs.values()), list(PAPERS)
    whole = auxiliary_batch(images, tasks, 24, chance_of(3, "x", range(8), CPU))
    part = auxiliary_batch(images, tasks, 24, chance_of(3, "x", range(1, 8, 3), CPU))
    assert torch.equal(part.clean, whole.clean[1::3])
    assert torch.equal(part.task, whole.task[1::3])
    assert (part.distorted - whole.distorted[1::3]).abs().max() < 1.01 / 255


def test_the_processes_of_a_crew_draw_other_samples_on_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.chance.generator_on", lambda device, seed: torch.Generator().manual_seed(seed))
    parts = [chance_of(0, "x", part, torch.device("cuda")) for part in (range(0, 8, 2), range(1, 8, 2), range(4))]
    assert all(isinstance(part, Together) for part in parts)
    drawn = {tuple(part.pick([1000] * part.size)) for part in parts}
    assert len(drawn) == 3
    noise = [part.normal(torch.zeros(4, 3, 2, 2)) for part in parts]
    assert not torch.equal(noise[0], noise[1])


@either
def test_numbers_cover_their_range_evenly(drawn: Draw) -> None:
    chance = drawn(3000)
    counts = torch.bincount(torch.tensor(chance.pick([5] * 3000)), minlength=5)
    assert counts.shape == (5,)
    assert (counts > 450).all()
    values = chance.uniform(2, 4)
    assert values.dtype == torch.float64
    assert 2 <= values.min() < 2.01
    assert 3.99 < values.max() < 4
    shares = torch.bincount(torch.tensor(chance.draw(torch.tensor([0.1, 0.0, 0.6, 0.3]))), minlength=4) / 3000
    assert torch.allclose(shares, torch.tensor([0.1, 0.0, 0.6, 0.3]), atol=0.04)


@either
def test_whole_numbers_are_below_each_samples_own_count(drawn: Draw) -> None:
    counts = [1, 2, 3] * 200
    picked = drawn(600).pick(counts)
    for count in (1, 2, 3):
        assert {value for value, bound in zip(picked, counts, strict=True) if bound == count} == set(range(count))


@either
def test_noise_is_independent_of_unit_variance_and_counts_are_as_expected(drawn: Draw) -> None:
    chance, shape = drawn(8), (8, 3, 40, 40)
    noise = chance.normal(torch.zeros(shape))
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float((noise[0] * noise[1]).mean()) == pytest.approx(0, abs=0.06)
    counts = chance.poisson(torch.full(shape, 7.0, dtype=torch.float64))
    assert float(counts.mean()) == pytest.approx(7, abs=0.1)
    assert float(counts.var()) == pytest.approx(7, abs=0.3)


@either
def test_of_several_tries_the_most_textured_is_taken(drawn: Draw, seeded: Seeded) -> None:
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    image[:, 40:, 40:] = torch.randint(256, (3, 24, 24), generator=seeded(0), dtype=torch.uint8)

    def contrast(tries: int) -> float:
        return float(textured_crops([image] * 40, 16, drawn(40), tries).float().std(dim=(1, 2, 3)).sum())

    assert contrast(8) > 1.5 * contrast(1)


def test_an_image_smaller_than_a_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than a crop of 24×24"):
        textured_crops([torch.zeros(3, 23, 40, dtype=torch.uint8)], 24, own(1), tries=1)


def test_patches_of_a_distortion_differ_from_those_of_another(photographs: dict[str, Tensor]) -> None:
    images = list(photographs.values())
    clean, distorted = distorted_crops(images, ["noise"] * 5, 64, own(5), tries=4)
    assert clean.shape == distorted.shape == (5, 3, 64, 64)
    for one, other in zip(clean, distorted, strict=True):
        assert 0 < float((one - other).abs().mean()) < 0.3
    _, blurred = distorted_crops(images, ["blur"] * 5, 64, own(5), tries=4)
    _, bicubic = distorted_crops(images, ["bicubic"] * 5, 64, own(5), tries=4)
    assert not torch.equal(blurred, bicubic)

"""Training patches and their random numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from ml.sampling import crop, dihedral, generator_for, pick, textured_crop

Seeded = Callable[[int], torch.Generator]


def drawn(seed: int, stage: str, step: int) -> list[float]:
    return torch.rand(4, generator=generator_for(seed, stage, step)).tolist()


def test_random_numbers_depend_on_seed_stage_and_step_only() -> None:
    torch.manual_seed(0)
    first = drawn(1, "a", 2)
    torch.manual_seed(9)
    assert first == drawn(1, "a", 2)
    others = [drawn(2, "a", 2), drawn(1, "b", 2), drawn(1, "a", 3), drawn(12, "a", 2), drawn(1, "a", 22)]
    assert all(first != other for other in others)


def test_pick_reaches_every_number_and_no_other(seeded: Seeded) -> None:
    generator = seeded(0)
    assert {pick(3, generator) for _ in range(60)} == {0, 1, 2}


def test_a_crop_is_taken_at_the_same_place_of_all_images(odd_image: Tensor, seeded: Seeded) -> None:
    for seed in range(20):
        one, other = crop([odd_image, odd_image + 1], 9, seeded(seed))
        assert one.shape == (3, 9, 9)
        assert torch.equal(one + 1, other)


def test_crops_reach_all_four_corners(seeded: Seeded) -> None:
    image = torch.arange(9.0).reshape(1, 3, 3).expand(3, 3, 3)
    generator = seeded(0)
    starts = {float(crop([image], 2, generator)[0][0, 0, 0]) for _ in range(60)}
    assert starts == {0, 1, 3, 4}


def test_a_crop_larger_than_the_image_is_all_of_it(odd_image: Tensor, seeded: Seeded) -> None:
    (taken,) = crop([odd_image], 33, seeded(0))
    assert taken.shape == (3, 33, 31)


def test_a_textured_crop_prefers_texture_to_flat_ground(seeded: Seeded) -> None:
    image = torch.full((3, 64, 64), 0.5)
    image[:, 40:, 40:] = torch.rand(3, 24, 24, generator=seeded(0))

    def contrast(tries: int) -> float:
        crops = [textured_crop([image], 16, seeded(seed), tries) for seed in range(40)]
        return sum(float(taken[0].std()) for taken in crops)

    assert contrast(8) > 1.5 * contrast(1)


def test_augmentation_is_the_eight_symmetries_of_the_square() -> None:
    image = torch.arange(27.0).reshape(1, 1, 3, 3, 3)
    eight = [(turns, flips) for turns in range(4) for flips in range(2)]
    turned = dihedral(image.expand(1, 8, 3, 3, 3), *zip(*eight, strict=True))[0]
    for one, (turns, flips) in zip(turned, eight, strict=True):
        expected = torch.rot90(image[0, 0], turns, (1, 2))
        assert torch.equal(one, expected.flip(2) if flips else expected)
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 8


def test_augmentation_turns_both_images_of_a_pair_alike(seeded: Seeded) -> None:
    images = torch.randint(256, (12, 3, 9, 9), generator=seeded(0), dtype=torch.uint8)
    turns, flips = [index % 4 for index in range(12)], [index % 2 for index in range(12)]
    one, other = dihedral(torch.stack([images, 255 - images]), turns, flips)
    assert torch.equal(one, 255 - other)

"""The mixtures of RL-Restore, which the paper takes over."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ml.distortions import distort
from ml.distortions.blurs import gaussian_blur
from ml.distortions.mixtures import LEVELS, MILD, MODERATE, SEVERE, level_triples, mixed_at
from ml.distortions.noises import gaussian_noise
from ml.images import to_uint8

Seeded = Callable[[int], torch.Generator]


def test_levels_of_zero_change_nothing(odd_image: Tensor, seeded: Seeded) -> None:
    assert torch.equal(mixed_at(odd_image, (0, 0, 0), seeded(0)), odd_image)


@pytest.mark.parametrize("level", [1, 4, 10])
def test_jpeg_level_is_pillows_quality_100_minus_9_levels(level: int, odd_image: Tensor, seeded: Seeded) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(to_uint8(odd_image).permute(1, 2, 0).numpy())
    image.save(buffer, "JPEG", quality=100 - 9 * level, subsampling="4:2:0")
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    assert torch.equal(to_uint8(mixed_at(odd_image, (0, 0, level), seeded(0))), expected)


def test_mixtures_blur_then_add_noise_then_compress(odd_image: Tensor, seeded: Seeded) -> None:
    by_hand = gaussian_noise(gaussian_blur(odd_image, 1.5), 20, seeded(3))
    assert torch.equal(mixed_at(odd_image, (3, 4, 0), seeded(3)), by_hand)
    compressed = mixed_at(by_hand, (0, 0, 2), seeded(0))
    assert torch.equal(mixed_at(odd_image, (3, 4, 2), seeded(3)), compressed)


@pytest.mark.parametrize(("sums", "low", "high"), [(MILD, 9, 11), (MODERATE, 12, 17), (SEVERE, 18, 20)])
def test_the_levels_of_a_mixture_add_up_to_rl_restores_range(sums: range, low: int, high: int) -> None:
    triples = level_triples(sums)
    expected = {(b, n, j) for b in range(11) for n in range(11) for j in range(11) if low <= b + n + j <= high}
    assert set(triples) == expected
    assert len(triples) == len(expected)
    assert list(LEVELS) == list(range(11))


def test_harder_mixtures_do_more_damage(photographs: dict[str, Tensor], seeded: Seeded) -> None:
    image = photographs["chelsea"][:, 50:114, 50:120] / 255

    def damage(name: str) -> float:
        return sum(float((distort(name, image, seeded(seed)) - image).square().mean()) for seed in range(80))

    assert damage("mild") < damage("moderate") < damage("severe")

"""The mixtures of blur, noise and JPEG of RL-Restore (Yu et al., CVPR 2018), which the paper's Table 4 takes over.

A level l in 0…10 stands for blur σ = 0.5 l px, noise σ = 5 l (of 255), and JPEG quality 100 − 9 l.
"""

from itertools import product
from typing import Final

import torch
from torch import Generator

from ml.distortions.blurs import gaussian_blur
from ml.distortions.kinds import Distort, Image
from ml.distortions.noises import gaussian_noise
from ml.images import jpeg

LEVELS: Final = range(11)
MILD, MODERATE, SEVERE = range(9, 12), range(12, 18), range(18, 21)  # ranges of the sum of the three levels


def mixed_at(image: Image, levels: tuple[float, float, float], generator: Generator) -> Image:
    """Blur, then noise, then JPEG, at the given three levels of 0…10; level zero is left out."""
    blur_level, noise_level, jpeg_level = levels
    image = gaussian_blur(image, 0.5 * blur_level)
    if noise_level:
        image = gaussian_noise(image, 5 * noise_level, generator)
    if not jpeg_level:
        return image
    images = image.reshape(-1, *image.shape[-3:])  # (b, 3, h, w)
    return torch.stack([jpeg(each, round(100 - 9 * jpeg_level)) for each in images]).reshape(image.shape)


def level_triples(sums: range) -> list[tuple[int, int, int]]:
    """All combinations of the three levels whose sum lies in the range."""
    return [(b, n, j) for b, n, j in product(LEVELS, LEVELS, LEVELS) if b + n + j in sums]


def mixed(sums: range) -> Distort:
    """The mixture whose levels add up to a value in `sums`, all combinations equally likely.

    A strength below 1 lessens all three levels in proportion.
    """
    triples = level_triples(sums)

    def distort(image: Image, strength: float, generator: Generator) -> Image:
        b, n, j = triples[int(torch.randint(len(triples), (), generator=generator))]
        return mixed_at(image, (strength * b, strength * n, strength * j), generator)

    return distort

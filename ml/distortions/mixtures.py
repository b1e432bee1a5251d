"""The mixtures of blur, noise and JPEG of RL-Restore (Yu et al., CVPR 2018), which the paper's Table 4 takes over.

A level l in 0…10 stands for blur σ = 0.5 l px, noise σ = 5 l (of 255), and JPEG quality 100 − 9 l.
"""

from itertools import product
from typing import Final

import torch
from torch import Generator, Tensor

from ml.chance import Amount, Source, one_of
from ml.distortions.blurs import gaussian_blur
from ml.distortions.coding import compressed
from ml.distortions.kinds import Distort, Image
from ml.distortions.noises import gaussian_noise
from ml.placement import places

LEVELS: Final = range(11)
UNCOMPRESSED: Final = 101.0  # A quality that no JPEG has.
MILD, MODERATE, SEVERE = range(9, 12), range(12, 18), range(18, 21)  # ranges of the sum of the three levels


def mixed_at(image: Image, levels: tuple[Amount, Amount, Amount], source: Source) -> Image:
    """Blur, then noise, then JPEG, at the given three levels of 0…10; level zero is left out."""
    blur_level, noise_level, jpeg_level = levels
    image = gaussian_blur(image, 0.5 * blur_level)
    if isinstance(noise_level, Tensor):
        assert not isinstance(source, Generator)
        noisy = [place for place, level in enumerate(noise_level.tolist()) if level > 0]
        if noisy:
            at = places(noisy, image)
            made = gaussian_noise(image[at], 5 * noise_level[noisy], source.among(noisy))
            image = image.index_copy(0, at, made)
    elif noise_level > 0:
        image = gaussian_noise(image, 5 * noise_level, source)
    if isinstance(jpeg_level, Tensor):
        return compressed(image, torch.where(jpeg_level > 0, 100 - 9 * jpeg_level, UNCOMPRESSED))
    return compressed(image, 100 - 9 * jpeg_level) if jpeg_level > 0 else image


def level_triples(sums: range) -> list[tuple[int, int, int]]:
    """All combinations of the three levels whose sum lies in the range."""
    return [(b, n, j) for b, n, j in product(LEVELS, LEVELS, LEVELS) if b + n + j in sums]


def mixed(sums: range) -> Distort:
    """The mixture whose levels add up to a value in `sums`, all combinations equally likely.

    A strength below 1 lessens all three levels in proportion.
    """
    triples = torch.tensor(level_triples(sums), dtype=torch.float64)  # (n, 3)

    def distort(image: Image, strength: Amount, source: Source) -> Image:
        b, n, j = (strength * level for level in one_of(triples, source))
        return mixed_at(image, (b, n, j), source)

    return distort

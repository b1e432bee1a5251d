"""The known distortions (Table 4): clean image in, distorted image of the same size out.

To add one, write a function and name it in `DISTORTIONS`; the next prior knows it and the graph ranks it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ml.images import from_uint8, jpeg, to_uint8

Image = Float[Tensor, "3 h w"]
Distort = Callable[[Image, Generator], Image]


@dataclass(frozen=True)
class Distortion:
    """A known distortion: what it does, and how a person would call it."""

    apply: Distort
    words: str


# RL-Restore (Yu et al., CVPR 2018): a level l in 0…10 stands for blur σ = 0.5 l px, noise σ = 5 l (of 255), and JPEG
# quality 100 − 9 l.
LEVELS: Final = range(11)
MILD, MODERATE, SEVERE = range(9, 12), range(12, 18), range(18, 21)  # ranges of the sum of the three levels


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def resize(image: Image, height: int, width: int) -> Float[Tensor, "3 {height} {width}"]:
    """Bicubic resampling; shrinking averages over the shrunk area (antialiasing), as MATLAB's imresize does."""
    resized = F.interpolate(image[None], (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def down_up(image: Image, factor: int) -> Image:
    """Shrink by `factor` and enlarge to the old size."""
    height, width = image.shape[1:]
    small = resize(image, max(1, round(height / factor)), max(1, round(width / factor)))
    return resize(small, height, width)


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float) -> Float[Tensor, "k k"]:
    """An anisotropic Gaussian that sums to one; standard deviations in pixels along axes turned by `angle` radians."""
    radius = max(1, math.ceil(3 * max(sigma_x, sigma_y)))
    grid = torch.arange(-radius, radius + 1, dtype=torch.float32)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    u = (x * math.cos(angle) + y * math.sin(angle)) / max(sigma_x, 1e-3)
    v = (y * math.cos(angle) - x * math.sin(angle)) / max(sigma_y, 1e-3)
    kernel = torch.exp(-(u**2 + v**2) / 2)
    return kernel / kernel.sum()


def convolve(image: Image, kernel: Float[Tensor, "kh kw"]) -> Image:
    """Filter each channel, the image continued by its edge pixels."""
    pad_y, pad_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = F.pad(image[None], (pad_x, pad_x, pad_y, pad_y), mode="replicate")
    weight = kernel.to(image).expand(3, 1, -1, -1)
    return F.conv2d(padded, weight, groups=3)[0]


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Isotropic Gaussian blur, `sigma` in pixels; none at zero. Two one-dimensional passes."""
    if sigma <= 0:
        return image
    radius = max(1, math.ceil(3 * sigma))
    line = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float32) ** 2) / (2 * sigma**2))
    line = line / line.sum()
    return convolve(convolve(image, line[None, :]), line[:, None])


def gaussian_noise(image: Image, sigma_255: float, generator: Generator) -> Image:
    """Additive white Gaussian noise; `sigma_255` on the scale 0…255."""
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return image + noise * (sigma_255 / 255)


def bicubic(image: Image, generator: Generator) -> Image:
    return down_up(image, 8)


def aniso_bicubic(image: Image, generator: Generator) -> Image:
    """Anisotropic blur before the sampling. The paper gives no widths; these are ours."""
    sigma_x, sigma_y = uniform(0.5, 4.0, generator), uniform(0.5, 4.0, generator)
    kernel = gaussian_kernel(sigma_x, sigma_y, uniform(0, math.pi, generator))
    return down_up(convolve(image, kernel), 4)


def noise(image: Image, generator: Generator) -> Image:
    return gaussian_noise(image, uniform(0, 50, generator), generator)


def blur(image: Image, generator: Generator) -> Image:
    return gaussian_blur(image, uniform(0, 5, generator))


def mixed_at(image: Image, levels: tuple[int, int, int], generator: Generator) -> Image:
    """Blur, then noise, then JPEG, at the given three levels of 0…10; level zero is left out."""
    blur_level, noise_level, jpeg_level = levels
    image = gaussian_blur(image, 0.5 * blur_level)
    if noise_level:
        image = gaussian_noise(image, 5 * noise_level, generator)
    return jpeg(image, 100 - 9 * jpeg_level) if jpeg_level else image


def level_triples(sums: range) -> list[tuple[int, int, int]]:
    """All combinations of the three levels whose sum lies in the range."""
    return [(b, n, j) for b, n, j in product(LEVELS, LEVELS, LEVELS) if b + n + j in sums]


def mixed(sums: range) -> Distort:
    """The mixed distortion whose levels add up to a value in `sums`, all combinations equally likely."""
    triples = level_triples(sums)

    def distort(image: Image, generator: Generator) -> Image:
        chosen = int(torch.randint(len(triples), (), generator=generator))
        return mixed_at(image, triples[chosen], generator)

    return distort


DISTORTIONS: Final[dict[str, Distortion]] = {
    "bicubic": Distortion(bicubic, "lost resolution (8×)"),
    "aniso_bicubic": Distortion(aniso_bicubic, "directional blur and lost resolution (4×)"),
    "noise": Distortion(noise, "pure noise"),
    "blur": Distortion(blur, "pure blur"),
    "mild": Distortion(mixed(MILD), "a mild mixture of blur, noise and JPEG"),
    "moderate": Distortion(mixed(MODERATE), "a moderate mixture of blur, noise and JPEG"),
    "severe": Distortion(mixed(SEVERE), "a severe mixture of blur, noise and JPEG"),
}


def distort(name: str, image: Image, generator: Generator) -> Image:
    """Apply a distortion by name and round to 8 bits, since real distorted images come from files."""
    return from_uint8(to_uint8(DISTORTIONS[name].apply(image, generator)))

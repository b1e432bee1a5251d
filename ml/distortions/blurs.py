"""Blur: convolution with a kernel that sums to one."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.chance import Amount, Source, uniform
from ml.distortions.kinds import LEAST_STRENGTH, Image, kernel_for
from ml.placement import like

FINE = 32  # Lines per pixel along which the chords of a disc are measured.


def convolve(image: Image, kernel: Float[Tensor, "*each kh kw"]) -> Image:
    """Filter each channel, the image continued by its edge pixels. Both sides of the kernel must be odd.

    A kernel for all images, or one for each of a batch.
    """
    pad_y, pad_x = kernel.shape[-2] // 2, kernel.shape[-1] // 2
    planes = image.reshape(1, -1, *image.shape[-2:])  # (1, 3b, h, w)
    padded = F.pad(planes, (pad_x, pad_x, pad_y, pad_y), mode="replicate")
    kernel = like(image, kernel)
    each = kernel[None] if kernel.ndim == 2 else kernel.repeat_interleave(3, dim=0)
    weight = each[:, None].expand(planes.shape[1], 1, -1, -1)  # (3b, 1, kh, kw)
    return F.conv2d(padded, weight, groups=planes.shape[1]).reshape(image.shape)


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float) -> Float[Tensor, "k k"]:
    """An anisotropic Gaussian that sums to one; standard deviations in pixels along axes turned by `angle` radians."""
    radius = max(1, math.ceil(3 * max(sigma_x, sigma_y)))
    grid = torch.arange(-radius, radius + 1, dtype=torch.float32)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    u = (x * math.cos(angle) + y * math.sin(angle)) / max(sigma_x, 1e-3)
    v = (y * math.cos(angle) - x * math.sin(angle)) / max(sigma_y, 1e-3)
    kernel = torch.exp(-(u**2 + v**2) / 2)
    return kernel / kernel.sum()


def gaussian_blur(image: Image, sigma: Amount) -> Image:
    """Isotropic Gaussian blur, `sigma` in pixels; none at zero. Two one-dimensional passes."""
    widths = torch.as_tensor(sigma, dtype=torch.float64)[..., None]  # (1) or (b, 1)
    if (widths <= LEAST_STRENGTH).all():
        return image
    radii = (3 * widths).ceil().clamp_min(1)
    grid = torch.arange(-int(radii.max()), int(radii.max()) + 1)
    lines = torch.exp(-(grid**2) / (2 * widths.clamp_min(LEAST_STRENGTH) ** 2)) * (grid.abs() <= radii)
    lines = lines / lines.sum(dim=-1, keepdim=True)  # (k) or (b, k)
    return convolve(convolve(image, lines[..., None, :]), lines[..., :, None])


def motion_kernel(length: float, angle: float) -> Float[Tensor, "k k"]:
    """A straight line of uniform brightness, as a steady movement during the exposure leaves it; sums to one.

    `length` ≥ 1 is how many pixels in a row see a point, so 1 is no movement: the centre runs along a segment of
    length − 1 pixels at `angle` radians from x towards y, and each of its points is shared among its four neighbours
    in proportion to their nearness.
    Source: Yitzhaky & Kopeika, Identification of blur parameters from motion blurred images, GMIP 1997.
    """
    radius = max(1, math.ceil((length - 1) / 2))
    points = 1 + 8 * math.ceil(length)
    along = torch.linspace(-(length - 1) / 2, (length - 1) / 2, points)  # (p,)
    grid = torch.arange(-radius, radius + 1, dtype=torch.float32)
    in_x = (1 - (along[:, None] * math.cos(angle) - grid).abs()).clamp_min(0)  # (p, k)
    in_y = (1 - (along[:, None] * math.sin(angle) - grid).abs()).clamp_min(0)  # (p, k)
    ends = torch.ones(points)
    ends[[0, -1]] = 0.5  # trapezoidal rule
    kernel = torch.einsum("p,py,px->yx", ends, in_y, in_x)  # (k, k)
    return kernel / kernel.sum()


def disc_kernel(radius: float) -> Float[Tensor, "k k"]:
    """The image of a point by a lens out of focus: a uniform disc, each pixel with the share that it covers.

    `radius` in pixels; up to a half the disc lies within its pixel and changes nothing. Sums to one.
    Source: the geometrical limit of Goodman, Introduction to Fourier Optics, §6.4.4.
    """
    reach = max(1, math.ceil(radius - 0.5))
    side = 2 * reach + 1
    y = (torch.arange(side * FINE) + 0.5) / FINE - side / 2  # pixels from the centre, of lines across the disc
    half = (max(radius, 0.5) ** 2 - y**2).clamp_min(0).sqrt()[:, None]  # of the chord in each line
    x = torch.arange(side) - reach
    overlap = (torch.minimum(x + 0.5, half) - torch.maximum(x - 0.5, -half)).clamp_min(0)  # (k · fine, k)
    covered = overlap.reshape(side, FINE, side).sum(dim=1)  # (k, k)
    covered = covered + covered.T  # Exact along x alone, so that the disc would not quite be round.
    return covered / covered.sum()


def blur(image: Image, strength: Amount, source: Source) -> Image:
    """Gaussian blur with σ = 5 · strength pixels (Table 4)."""
    return gaussian_blur(image, 5 * strength)


def motion_blur(image: Image, strength: Amount, source: Source) -> Image:
    """Movement in a random direction by 14 · strength pixels: `motion_kernel` of length 1 to 15. The range is ours."""
    return convolve(image, kernel_for(motion_kernel, 1 + 14 * strength, uniform(0, math.pi, source)))


def defocus(image: Image, strength: Amount, source: Source) -> Image:
    """A disc of radius 5 · strength pixels; nothing up to a tenth, half a pixel. The range is ours."""
    return convolve(image, kernel_for(disc_kernel, 5 * strength))

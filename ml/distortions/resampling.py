"""Lost resolution: shrink, and enlarge to the old size."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.chance import Amount, Source, uniform
from ml.distortions.blurs import convolve, gaussian_kernel
from ml.distortions.kinds import Image, by_amount, kernel_for
from ml.placement import like

LANCZOS = 3  # lobes on either side


def resize(image: Float[Tensor, "*b 3 h w"], height: int, width: int) -> Float[Tensor, "*b 3 {height} {width}"]:
    """Bicubic resampling; shrinking averages over the shrunk area (antialiasing), as MATLAB's imresize does."""
    planes = image.reshape(-1, *image.shape[-3:])  # (b, 3, h, w)
    resized = F.interpolate(planes, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 1).reshape(*image.shape[:-2], height, width)


def shrunk(length: int, factor: float) -> int:
    return max(1, round(length / factor))


def down_up(image: Image, factor: float) -> Image:
    """Shrink by `factor` and enlarge to the old size."""
    height, width = image.shape[-2:]
    return resize(resize(image, shrunk(height, factor), shrunk(width, factor)), height, width)


def lanczos_matrix(old: int, new: int) -> Float[Tensor, "{new} {old}"]:
    """Resamples a line of `old` values to `new` by a windowed sinc, which passes what `new` values can hold.

    L(t) = sinc(t) sinc(t/3) for |t| < 3, t in samples of the coarser of both lines; rows sum to one.
    Source: Duchon, Lanczos filtering in one and two dimensions, J. Appl. Meteorology 1979.
    """
    scale = old / new
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * scale - 0.5  # (new,)
    t = (torch.arange(old, dtype=torch.float64) - centres[:, None]) / max(1.0, scale)  # (new, old)
    weights = torch.sinc(t) * torch.sinc(t / LANCZOS) * (t.abs() < LANCZOS)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def low_pass(image: Image, factor: float) -> Image:
    """Shrink by `factor` and enlarge, both by a windowed sinc: frequencies above 0.5 / factor a pixel are removed."""
    height, width = image.shape[-2:]
    rows, columns = shrunk(height, factor), shrunk(width, factor)
    down_up_y = lanczos_matrix(rows, height) @ lanczos_matrix(height, rows)  # (h, h)
    down_up_x = lanczos_matrix(columns, width) @ lanczos_matrix(width, columns)  # (w, w)
    return like(image, down_up_y) @ image @ like(image, down_up_x).T


def bicubic(image: Image, strength: Amount, source: Source) -> Image:
    """Bicubic ↓ and ↑ by 1 + 7 · strength; Table 4 has 8 always."""
    return by_amount(down_up, image, 1 + 7 * strength)


def aniso_bicubic(image: Image, strength: Amount, source: Source) -> Image:
    """Anisotropic blur, σ from 0.5 to 4 pixels along either axis, then bicubic ↓ and ↑ by 4, as in Table 4.

    The paper gives no widths; these are ours. A strength below 1 narrows the blur and lessens the factor.
    """
    sigma_x, sigma_y = uniform(0.5, 4.0, source), uniform(0.5, 4.0, source)
    kernel = kernel_for(gaussian_kernel, strength * sigma_x, strength * sigma_y, uniform(0, math.pi, source))
    return by_amount(down_up, convolve(image, kernel), 1 + 3 * strength)


def downscale_antialias(image: Image, strength: Amount, source: Source) -> Image:
    """Sampled at less than the full resolution, by 1 + 3 · strength, with nothing aliased. The range is ours."""
    return by_amount(low_pass, image, 1 + 3 * strength)

"""Image quality against the clean image, always on values rounded to 8 bits, as a stored file would have them."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ml.images import from_uint8, to_uint8

HIGHEST_DB = 100.0  # What equal images have, instead of infinity, which neither JSON nor a mean can hold.

Channel = Literal["rgb", "y"]


def psnr(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"], channel: Channel = "rgb") -> float:
    """Peak signal-to-noise ratio in dB, 10·log10(1/MSE), at most 100, which equal images have; over RGB, or of luma."""
    ours, reference = _shown(image, channel), _shown(clean, channel)
    return min(HIGHEST_DB, float(peak_signal_noise_ratio(ours, reference, data_range=1.0)))


def ssim(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"], channel: Channel = "rgb") -> float:
    """Structural similarity, at most 1: the mean over RGB, or of luma, with an 11×11 Gaussian window, σ = 1.5.

    Only where the whole window lies in the image, so both sides must be at least 11 pixels.
    Source: Wang et al., Image quality assessment, IEEE TIP 2004, doi:10.1109/TIP.2003.819861.
    """
    _, everywhere = structural_similarity_index_measure(
        _shown(image, channel)[None], _shown(clean, channel)[None], data_range=1.0, return_full_image=True
    )
    return float(everywhere[..., 5:-5, 5:-5].mean())


def luma(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "1 h w"]:
    """Y of ITU-R BT.601 in its narrow range, 16 to 235 of 255, as work on super-resolution reports it.

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255; not rounded. The peak stays 1, so that an error of a grey level
    counts 255/219 ≈ 1.16 times less than in RGB, +1.3 dB.
    """
    weights = torch.tensor([65.481, 128.553, 24.966]) / 255
    return torch.einsum("c,chw->hw", weights, image)[None] + 16 / 255


def rounded(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """As a stored file would have it."""
    return from_uint8(to_uint8(image.detach().to("cpu", torch.float32)))


def _shown(image: Float[Tensor, "3 h w"], channel: Channel) -> Float[Tensor, "c h w"]:
    return luma(rounded(image)) if channel == "y" else rounded(image)

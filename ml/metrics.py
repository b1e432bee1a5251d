"""Image quality against the clean image, always on values rounded to 8 bits, as a stored file would have them."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ml.images import from_uint8, to_uint8

HIGHEST_DB = 100.0  # What equal images have, instead of infinity, which neither JSON nor a mean can hold.


def psnr(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB over RGB, 10·log10(1/MSE), at most 100, which equal images have."""
    return min(HIGHEST_DB, float(peak_signal_noise_ratio(_rounded(image), _rounded(clean), data_range=1.0)))


def ssim(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> float:
    """Structural similarity, at most 1: the mean over RGB with an 11×11 Gaussian window, σ = 1.5.

    Only where the whole window lies in the image, so both sides must be at least 11 pixels.
    Source: Wang et al., Image quality assessment, IEEE TIP 2004, doi:10.1109/TIP.2003.819861.
    """
    _, everywhere = structural_similarity_index_measure(
        _rounded(image)[None], _rounded(clean)[None], data_range=1.0, return_full_image=True
    )
    return float(everywhere[..., 5:-5, 5:-5].mean())


def _rounded(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    return from_uint8(to_uint8(image.detach().to("cpu", torch.float32)))

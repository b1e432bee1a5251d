"""Held-out evaluation, and the gate that a model must pass to be used."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ml.alignment import aligned_psnr
from ml.backbones import SameSize
from ml.images import from_uint8
from ml.metrics import psnr, ssim
from ml.pairs import TargetPair
from ml.tiling import restore_tiled

LEAST_GAIN_DB = 0.02  # Below this a "gain" is noise of the evaluation, and the input is as good.


@dataclass(frozen=True)
class Quality:
    """Fidelity to the clean image: PSNR in dB and SSIM, of one image or averaged over several.

    `psnr` is strict, pixel against pixel, and what models are judged by; `aligned_psnr` forgives a shift.
    """

    psnr: float
    ssim: float
    aligned_psnr: float | None = None


def quality_of_input(pairs: Sequence[TargetPair]) -> list[Quality]:
    """How good doing nothing is, per pair."""
    quality = []
    for pair in pairs:
        clean, distorted = from_uint8(pair.clean), from_uint8(pair.distorted)
        quality.append(_quality(distorted, clean))
    return quality


def quality_of(network: SameSize, pairs: Sequence[TargetPair]) -> list[Quality]:
    """How good the network's results are, per pair."""
    network.eval()
    quality = []
    for pair in pairs:
        restored, clean = restore_tiled(network, from_uint8(pair.distorted)), from_uint8(pair.clean)
        quality.append(_quality(restored, clean))
    network.train()
    return quality


def _quality(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> Quality:
    return Quality(psnr(image, clean), ssim(image, clean), aligned_psnr(image.cpu().float(), clean))


def mean(qualities: Sequence[Quality]) -> Quality:
    """The mean over images, PSNR averaged in dB as the literature does."""
    count = len(qualities)
    aligned = [q.aligned_psnr for q in qualities if q.aligned_psnr is not None]
    return Quality(
        sum(q.psnr for q in qualities) / count,
        sum(q.ssim for q in qualities) / count,
        sum(aligned) / count if len(aligned) == count else None,
    )


def passes_gate(result: Quality, untouched: Quality) -> bool:
    """Whether using the model is better than leaving images as they are."""
    return result.psnr >= untouched.psnr + LEAST_GAIN_DB

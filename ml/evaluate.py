"""Held-out evaluation, and the gate that a model must pass to be used."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ml.alignment import aligned_psnr
from ml.backbones import SameSize
from ml.images import from_uint8
from ml.lpips import Lpips
from ml.metrics import psnr, ssim
from ml.pairs import TargetPair
from ml.precision import NotFinite
from ml.tiling import restore_tiled

LEAST_GAIN_DB = 0.02  # Below this a "gain" is noise of the evaluation, and the input is as good.


@dataclass(frozen=True)
class Quality:
    """Fidelity to the clean image: PSNR in dB and SSIM, of one image or averaged over several.

    `psnr` is strict, pixel against pixel, and what models are judged by; `aligned_psnr` forgives a shift. Those of luma
    alone, as the literature on super-resolution has them, end in `_y`. `lpips` is there where its weights are.
    """

    psnr: float
    ssim: float
    aligned_psnr: float | None = None
    psnr_y: float | None = None
    ssim_y: float | None = None
    lpips: float | None = None


def quality_of_input(pairs: Sequence[TargetPair], lpips: Lpips | None = None) -> list[Quality]:
    """How good doing nothing is, per pair."""
    quality = []
    for pair in pairs:
        clean, distorted = from_uint8(pair.clean), from_uint8(pair.distorted)
        quality.append(_quality(distorted, clean, lpips))
    return quality


def quality_of(network: SameSize, pairs: Sequence[TargetPair], lpips: Lpips | None = None) -> list[Quality]:
    """How good the network's results are, per pair; the worst there is where they are not finite."""
    network.eval()
    quality = []
    for pair in pairs:
        try:
            restored = restored_as_served(network, from_uint8(pair.distorted), grey=pair.grey)
        except NotFinite:
            quality.append(Quality(0.0, 0.0, 0.0, 0.0, 0.0, None if lpips is None else 1.0))
            continue
        quality.append(_quality(restored, from_uint8(pair.clean), lpips))
    network.train()
    return quality


def restored_as_served(network: SameSize, distorted: Float[Tensor, "3 h w"], *, grey: bool) -> Float[Tensor, "3 h w"]:
    """What a user gets: of an image with one channel one channel, the mean of what the network makes of three."""
    restored = restore_tiled(network, distorted)
    return restored.mean(dim=0, keepdim=True).expand(3, -1, -1) if grey else restored


def _quality(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"], lpips: Lpips | None) -> Quality:
    return Quality(
        psnr(image, clean),
        ssim(image, clean),
        aligned_psnr(image.cpu().float(), clean),
        psnr(image, clean, "y"),
        ssim(image, clean, "y"),
        lpips.distance(image, clean) if lpips is not None else None,
    )


def mean(qualities: Sequence[Quality]) -> Quality:
    """The mean over images, PSNR averaged in dB as the literature does; None for what one of them lacks."""
    count = len(qualities)

    def mean_of(values: list[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return sum(there) / count if len(there) == count else None

    return Quality(
        sum(q.psnr for q in qualities) / count,
        sum(q.ssim for q in qualities) / count,
        mean_of([q.aligned_psnr for q in qualities]),
        mean_of([q.psnr_y for q in qualities]),
        mean_of([q.ssim_y for q in qualities]),
        mean_of([q.lpips for q in qualities]),
    )


def passes_gate(result: Quality, untouched: Quality) -> bool:
    """Whether using the model is better than leaving images as they are."""
    return result.psnr >= untouched.psnr + LEAST_GAIN_DB

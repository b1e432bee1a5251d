"""Held-out evaluation, and the gate that a model must pass to be used."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml.backbones import SameSize
from ml.images import from_uint8
from ml.metrics import psnr, ssim
from ml.pairs import TargetPair
from ml.tiling import restore_tiled

LEAST_GAIN_DB = 0.02  # Below this a "gain" is noise of the evaluation, and the input is as good.


@dataclass(frozen=True)
class Quality:
    """Fidelity to the clean image: PSNR in dB and SSIM, of one image or averaged over several."""

    psnr: float
    ssim: float


def quality_of_input(pairs: Sequence[TargetPair]) -> list[Quality]:
    """How good doing nothing is, per pair."""
    quality = []
    for pair in pairs:
        clean, distorted = from_uint8(pair.clean), from_uint8(pair.distorted)
        quality.append(Quality(psnr(distorted, clean), ssim(distorted, clean)))
    return quality


def quality_of(network: SameSize, pairs: Sequence[TargetPair]) -> list[Quality]:
    """How good the network's results are, per pair."""
    network.eval()
    quality = []
    for pair in pairs:
        restored, clean = restore_tiled(network, from_uint8(pair.distorted)), from_uint8(pair.clean)
        quality.append(Quality(psnr(restored, clean), ssim(restored, clean)))
    network.train()
    return quality


def mean(qualities: Sequence[Quality]) -> Quality:
    """The mean over images, PSNR averaged in dB as the literature does."""
    count = len(qualities)
    return Quality(sum(q.psnr for q in qualities) / count, sum(q.ssim for q in qualities) / count)


def passes_gate(result: Quality, untouched: Quality) -> bool:
    """Whether using the model is better than leaving images as they are."""
    return result.psnr >= untouched.psnr + LEAST_GAIN_DB

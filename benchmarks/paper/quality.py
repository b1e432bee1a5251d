"""The quality of restored images as a record keeps it: the mean, and every image by its name."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ml.evaluate import Quality, mean, quality_of_input
from ml.images import from_uint8
from ml.lpips import Lpips
from ml.metrics import psnr, ssim
from ml.pairs import TargetPair


def measured(
    unseen: Sequence[TargetPair], lpips: Lpips | None, restored: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Any]:
    """The quality of what is made of each distorted image, or of the image itself."""
    if restored is None:
        return summary(unseen, quality_of_input(unseen, lpips))
    qualities = []
    for pair in unseen:
        clean, image = from_uint8(pair.clean), restored(from_uint8(pair.distorted))
        distance = lpips.distance(image, clean) if lpips is not None else None
        qualities.append(Quality(psnr(image, clean), ssim(image, clean), lpips=distance))
    return summary(unseen, qualities)


def summary(unseen: Sequence[TargetPair], qualities: Sequence[Quality]) -> dict[str, Any]:
    """The mean over images, and each by its name."""
    average = mean(qualities)
    whole = {"psnr": average.psnr, "ssim": average.ssim}
    if average.lpips is not None:
        whole["lpips"] = average.lpips
    images = {
        pair.name: {name: getattr(quality, name) for name in whole}
        for pair, quality in zip(unseen, qualities, strict=True)
    }
    return whole | {"images": images}

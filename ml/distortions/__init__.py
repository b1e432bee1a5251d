"""The known distortions: clean image in, distorted image of the same size out.

The paper's seven (Table 4) are what a job learns from unless it asks for others. To add one, write a function beside
its like and name it in `DISTORTIONS`; `drtl prior extend` makes a prior know it, and the graph ranks it.
"""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ml.chance import Chance, Source
from ml.distortions.blurs import blur, defocus, motion_blur
from ml.distortions.coding import chroma_subsampling, jpeg, quantize
from ml.distortions.kinds import Distortion, Image
from ml.distortions.mixtures import MILD, MODERATE, SEVERE, mixed
from ml.distortions.noises import noise, poisson, speckle
from ml.distortions.resampling import aniso_bicubic, bicubic, downscale_antialias
from ml.distortions.sensor import bayer
from ml.distortions.sharpening import sharpen_halo
from ml.images import from_uint8, to_uint8
from ml.placement import by_value, places

PAPERS: Final = ("bicubic", "aniso_bicubic", "noise", "blur", "mild", "moderate", "severe")

DISTORTIONS: Final[dict[str, Distortion]] = {
    "bicubic": Distortion(bicubic, "lost resolution (8×)", weakest=1),
    "aniso_bicubic": Distortion(aniso_bicubic, "directional blur and lost resolution (4×)", weakest=1),
    "noise": Distortion(noise, "pure noise"),
    "blur": Distortion(blur, "pure blur"),
    "mild": Distortion(mixed(MILD), "a mild mixture of blur, noise and JPEG", weakest=1),
    "moderate": Distortion(mixed(MODERATE), "a moderate mixture of blur, noise and JPEG", weakest=1),
    "severe": Distortion(mixed(SEVERE), "a severe mixture of blur, noise and JPEG", weakest=1),
    "jpeg": Distortion(jpeg, "JPEG compression"),
    "poisson": Distortion(poisson, "photon noise, stronger where it is bright"),
    "bayer": Distortion(bayer, "colours interpolated behind a filter array", weakest=1),
    "motion_blur": Distortion(motion_blur, "motion blur"),
    "defocus": Distortion(defocus, "a lens out of focus", weakest=0.1),
    "chroma_subsampling": Distortion(chroma_subsampling, "colour of low resolution"),
    "sharpen_halo": Distortion(sharpen_halo, "over-sharpening with halos"),
    "downscale_antialias": Distortion(downscale_antialias, "lost resolution (up to 4×)"),
    "quantize": Distortion(quantize, "too few levels"),
    "speckle": Distortion(speckle, "speckle, proportional to brightness"),
}


def distort(name: str, image: Image, source: Source) -> Image:
    """Apply a distortion by name and round to 8 bits, since real distorted images come from files."""
    return from_uint8(to_uint8(DISTORTIONS[name].apply(image, source)))


def distort_each(names: Sequence[str], images: Float[Tensor, "b 3 h w"], chance: Chance) -> Float[Tensor, "b 3 h w"]:
    """Apply to each image of a batch the distortion named for it; those with the same one are distorted together."""
    result = torch.empty_like(images)
    for name, own in by_value(names):
        at = places(own, images)
        result[at] = distort(name, images[at], chance.among(own))
    return result

"""Whole images for training: files become tensors, through the same reader as in inference.

Inside `ml` an image is RGB, float32, in [0, 1], channels first.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Generator, Tensor

from ml.image_reader import open_image

CLEAN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


class UnusableCleanImages(RuntimeError):
    """The operator's folder of clean images is not there, or holds none that can be read."""


@dataclass(frozen=True)
class Picture:
    """A decoded file: its colours, and what else it was."""

    pixels: Float[Tensor, "3 h w"]
    alpha: Float[Tensor, "1 h w"] | None = None
    grey: bool = False
    icc_profile: bytes | None = None


def decode(file: Path | bytes, *, max_pixels: int | None = None) -> Picture:
    """Read a whole image file, as inference reads its strips. Raises ValueError for what is no readable image."""
    with open_image(file, max_pixels=max_pixels) as reader:
        rows = reader.read_all()  # (h, w, c)
        colours = rows.shape[2] - reader.has_alpha
        brightest = 255 if reader.depth == 8 else 65535
        channels = torch.from_numpy(rows.astype(np.float32)).permute(2, 0, 1) / brightest  # (c, h, w)
        return Picture(
            channels[:colours].expand(3, -1, -1).contiguous(),
            channels[colours:].contiguous() if reader.has_alpha else None,
            reader.grey,
            reader.metadata.icc_profile,
        )


def to_uint8(image: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """Round to 8 bits, as every file and every metric here does."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def from_uint8(image: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    return image.to(torch.float32) / 255


def digest_of(images: Sequence[UInt8[Tensor, "3 _ _"]]) -> str:
    """SHA-256, in hex, over the sizes and values of images in their order."""
    whole = hashlib.sha256()
    for image in images:
        whole.update(f"{tuple(image.shape)}".encode())
        whole.update(image.contiguous().numpy().data)
    return whole.hexdigest()


def jpeg(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """The image after one JPEG compression, `quality` in 1…100, chroma subsampled 4:2:0 as cameras and encoders do."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy()).save(buffer, "JPEG", quality=quality, subsampling=2)
    with Image.open(buffer) as decoded:
        array = np.array(decoded)  # (h, w, 3)
    return from_uint8(torch.from_numpy(array).permute(2, 0, 1)).to(image.device)


def image_files(folder: Path) -> list[Path]:
    """The files of a folder that are named as images, by name. Raises ValueError for none; OSError as the folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in CLEAN_SUFFIXES and not path.is_dir())
    if not files:
        raise ValueError(f"folder: no images in {folder}")
    return files


MOST_DRAWS: Final = 4  # Times the images that are wanted.


def load_folder(
    folder: Path,
    most: int | None = None,
    generator: Generator | None = None,
    tick: Callable[[], None] = lambda: None,
    leave_out: Callable[[str], None] | None = None,
    least_side: int = 0,
) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images of a folder by name, as 8-bit tensors to save memory; of more than `most`, as many drawn at random.

    Calls `tick` before each. What cannot be read, or has a side of less than `least_side` pixels, is left out and told
    to `leave_out`; another is then drawn instead, a few times as many as wanted at most. Raises ValueError where
    nothing is left, or without `leave_out` for what cannot be read; OSError where the folder cannot be read.
    """
    files = image_files(folder)
    order = list(range(len(files)))
    if most is not None and len(files) > most:
        order = torch.randperm(len(files), generator=generator)[: MOST_DRAWS * most].tolist()
    images: dict[int, Tensor] = {}
    for index in order:
        if len(images) == most:
            break
        tick()
        try:
            image = to_uint8(decode(files[index]).pixels)
        except (OSError, ValueError) as error:
            if leave_out is None:
                raise ValueError(f"{files[index]}: {error}") from error
            leave_out(f"{files[index]}: {error}")
            continue
        if min(image.shape[1:]) >= least_side:
            images[index] = image
        elif leave_out is not None:
            leave_out(f"{files[index]}: {image.shape[2]}×{image.shape[1]}, a side of less than {least_side} pixels")
    if not images:
        raise ValueError(f"folder: no usable image in {folder}{f', of {least_side} pixels or more' * (least_side > 0)}")
    return [images[index] for index in sorted(images)]

"""Files and pixels: the only place in `ml` that knows of bytes, bit depth, orientation and colour profiles.

Inside `ml` an image is RGB, float32, in [0, 1], channels first.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Generator, Tensor

FileFormat = Literal["png", "jpeg"]
MEDIA_TYPES: dict[FileFormat, str] = {"png": "image/png", "jpeg": "image/jpeg"}
CLEAN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Picture:
    """A decoded file: its colours, and what must survive on the way back into a file."""

    pixels: Float[Tensor, "3 h w"]
    alpha: Float[Tensor, "1 h w"] | None = None
    grey: bool = False
    icc_profile: bytes | None = None


def decode(file: bytes) -> Picture:
    """Read an image file, turned upright by its EXIF orientation. Raises ValueError for what is no readable image."""
    try:
        with Image.open(io.BytesIO(file)) as opened:
            # A profile of CMYK says nothing about the RGB that leaves here.
            icc_profile = opened.info.get("icc_profile") if opened.mode != "CMYK" else None
            image = ImageOps.exif_transpose(opened)
            has_alpha = image.has_transparency_data
            grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                # Sixteen-bit grey: Pillow's own conversion to 8 bits clips instead of scaling.
                brightest = 1 if image.mode == "F" else 65535  # Judged by type: floats are taken to lie in [0, 1].
                values = torch.from_numpy(np.asarray(image).astype(np.float32)) / brightest  # (h, w)
                return Picture(values.clamp(0, 1).expand(3, -1, -1).contiguous(), grey=True, icc_profile=icc_profile)
            array = np.array(image.convert("RGBA" if has_alpha else "RGB"))  # (h, w, 3 or 4)
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        # Pillow's AVIF decoder says RuntimeError, its PNG reader SyntaxError.
        raise ValueError(f"file: not a readable image ({error})") from error
    channels = from_uint8(torch.from_numpy(array).permute(2, 0, 1))
    return Picture(channels[:3].contiguous(), channels[3:].contiguous() if has_alpha else None, grey, icc_profile)


def encode(picture: Picture, file_format: FileFormat = "png") -> bytes:
    """Write an image file with 8 bits per channel. Grey stays grey; JPEG, which has no alpha, is laid on white."""
    pixels = picture.pixels
    if picture.grey:
        pixels = pixels.mean(dim=0, keepdim=True)  # (1, h, w)
    if picture.alpha is not None:
        if file_format == "jpeg":
            pixels = pixels * picture.alpha + (1 - picture.alpha)
        else:
            pixels = torch.cat([pixels, picture.alpha])  # (c + 1, h, w)
    array = to_uint8(pixels).permute(1, 2, 0).cpu().numpy()  # (h, w, c)
    image = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
    buffer = io.BytesIO()
    # A grey image cannot carry an RGB profile, and the other way round; the mode did not change, so the profile fits.
    if file_format == "jpeg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=picture.icc_profile)
    else:
        image.save(buffer, "PNG", compress_level=1, icc_profile=picture.icc_profile)
    return buffer.getvalue()


def to_uint8(image: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """Round to 8 bits, as every file and every metric here does."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def from_uint8(image: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    return image.to(torch.float32) / 255


def jpeg(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """The image after one JPEG compression, `quality` in 1…100, chroma subsampled 4:2:0 as cameras and encoders do."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy()).save(buffer, "JPEG", quality=quality, subsampling=2)
    with Image.open(buffer) as decoded:
        array = np.array(decoded)  # (h, w, 3)
    return from_uint8(torch.from_numpy(array).permute(2, 0, 1)).to(image.device)


def load_folder(
    folder: Path, most: int | None = None, generator: Generator | None = None
) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images of a folder by name, as 8-bit tensors to save memory; of more than `most`, as many drawn at random.

    Raises ValueError where there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in CLEAN_SUFFIXES)
    if not files:
        raise ValueError(f"folder: no images in {folder}")
    if most is not None and len(files) > most:
        files = [files[index] for index in sorted(torch.randperm(len(files), generator=generator)[:most].tolist())]
    return [to_uint8(decode(path.read_bytes()).pixels) for path in files]

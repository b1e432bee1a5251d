"""An image as a browser can show it, whatever was uploaded; made in a child process (`app/api/examiner.py`)."""

from typing import BinaryIO

from PIL import Image, ImageOps

from app.api.images import opened


def render(file: BinaryIO, max_pixels: int, max_side: int | None, target: BinaryIO) -> None:
    """Write the image as a PNG with 8 bits per channel, at most `max_side` pixels wide and high, turned upright.

    Raises UnsupportedMedia, TooLarge or BadImage.
    """
    with opened(file, max_pixels) as image:
        if max_side is not None:
            image.draft("RGB", (max_side, max_side))  # A JPEG is then decoded at about the size that is asked for.
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            # Pillow's own conversion to 8 bits clips instead of scaling.
            upright = upright.convert("I").point(lambda value: value / 257).convert("L")
        elif upright.mode not in {"L", "RGB", "RGBA"}:
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        if max_side is not None:
            upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        # A profile of CMYK or of sixteen bits says nothing about what it was converted to.
        profile = image.info.get("icc_profile") if upright.mode == image.mode else None
        upright.save(target, "PNG", compress_level=1, icc_profile=profile)

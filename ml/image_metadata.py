"""What an image file says beside its pixels, and how that gets into the file that is written."""

import re
import struct
from dataclasses import dataclass
from typing import Final

from ml.libvips import pyvips

UNKNOWN_DOTS_PER_MM: Final = 72 / 25.4  # What readers assume, libvips among them.
MAX_EMBEDDED_BYTES: Final = 16 << 20  # A JPEG holds no larger profile; more is no metadata but a payload.
KEEP_EXIF, KEEP_XMP, KEEP_IPTC, KEEP_ICC = 1, 2, 4, 8  # VipsForeignKeep


@dataclass(frozen=True)
class Metadata:
    """What is carried from file to file. The bytes are as they stand in the file; None where the file has none.

    The orientation is no part of it: pixels are turned upright on reading, and EXIF and XMP say so on writing.
    """

    icc_profile: bytes | None = None
    dots_per_mm: tuple[float, float] | None = None  # across, down
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None


def metadata_of(image: pyvips.Image) -> Metadata:
    """The metadata of a loaded image, without what is too large or, as for a profile, not what it claims to be."""

    def blob(field: str) -> bytes | None:
        content = image.get(field) if image.get_typeof(field) else None
        return content if isinstance(content, bytes) and 0 < len(content) <= MAX_EMBEDDED_BYTES else None

    dots_per_mm = (image.xres, image.yres) if _resolution_is_stated(image) else None
    return Metadata(
        _profile(blob("icc-profile-data")),
        dots_per_mm,
        blob("exif-data"),
        _upright(blob("xmp-data")),
        blob("iptc-data"),
    )


def attach(image: pyvips.Image, metadata: Metadata, *, keep: bool) -> tuple[pyvips.Image, int]:
    """The image with its metadata, and the flags that make libvips write these and none of its own invention.

    Profile and resolution say what the pixels mean and always stay; `keep` is about EXIF, XMP and IPTC.
    """
    across, down = metadata.dots_per_mm or (UNKNOWN_DOTS_PER_MM, UNKNOWN_DOTS_PER_MM)
    image = image.copy(xres=across, yres=down)
    flags = 0
    contents = [(KEEP_ICC, "icc-profile-data", metadata.icc_profile)]
    if keep:
        contents += [
            (KEEP_EXIF, "exif-data", metadata.exif),
            (KEEP_XMP, "xmp-data", metadata.xmp),
            (KEEP_IPTC, "iptc-data", metadata.iptc),
        ]
    for flag, field, content in contents:
        if content is not None:
            image.set_type(pyvips.GValue.blob_type, field, content)
            flags |= flag
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return image, flags


def _resolution_is_stated(image: pyvips.Image) -> bool:
    """libvips gives every image a resolution: 1 per mm or 72 per inch where the file has none."""
    return not any(abs(image.xres - assumed) < 1e-3 for assumed in (1.0, UNKNOWN_DOTS_PER_MM)) and (
        0 < image.xres < 1e6 and 0 < image.yres < 1e6
    )


def _profile(content: bytes | None) -> bytes | None:
    """The ICC profile (ICC.1:2022, 7.2) of a space that pixels leave here in, without what some writers pad it with.

    Encoders refuse a profile of another length than it says, or since version 4 one of odd length, which would come to
    light after all the work.
    """
    if content is None or len(content) < 128:
        return None
    (size,) = struct.unpack(">I", content[:4])
    whole = 128 <= size <= len(content) and (size % 4 == 0 or content[8] < 4)
    return content[:size] if whole and content[36:40] == b"acsp" and content[16:20] in {b"RGB ", b"GRAY"} else None


def _upright(xmp: bytes | None) -> bytes | None:
    """XMP repeats the orientation of EXIF; left alone, it would turn the picture once more in some readers."""
    if xmp is None:
        return None
    return re.sub(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))[2-8]""", rb"\g<1>1", xmp)

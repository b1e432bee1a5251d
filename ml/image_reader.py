"""Reads image files of strangers from top to bottom: upright, exact, in memory that does not grow with the image."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ml.bmp import BmpRows
from ml.image_headers import (
    COMPRESSION,
    PHOTOMETRIC,
    PLANAR_CONFIGURATION,
    ROWS_PER_STRIP,
    is_odd_jpeg,
    refuse_animated_png,
    tiff_tags,
)
from ml.image_metadata import Metadata, metadata_of
from ml.libvips import pyvips

Rows = NDArray[np.uint8] | NDArray[np.uint16]
Kind = Literal["PNG", "JPEG", "WebP", "TIFF", "BMP"]

LONGEST_SIDE: Final = 1 << 18
# What cannot be decoded row by row is held whole: interlaced PNG, progressive JPEG (as coefficients), WebP, and a strip
# of every plane of a TIFF.
MAX_HELD_BYTES: Final = 768 << 20
MAX_TILE_PIXELS: Final = 1 << 24  # A tile of a TIFF is decoded whole, however small the image is.
YCBCR: Final = 6  # as a photometric interpretation
JPEG_COMPRESSIONS: Final = {6, 7}
SIGNATURES: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"RIFF", "WebP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)
LOADERS: Final = {
    "PNG": (pyvips.Image.pngload, pyvips.Image.pngload_buffer),
    "JPEG": (pyvips.Image.jpegload, pyvips.Image.jpegload_buffer),
    "WebP": (pyvips.Image.webpload, pyvips.Image.webpload_buffer),
    "TIFF": (pyvips.Image.tiffload, pyvips.Image.tiffload_buffer),
}
CHANNELS: Final = {
    "b-w": {1, 2},
    "grey16": {1, 2},
    "srgb": {3, 4},
    "rgb": {3, 4},
    "rgb16": {3, 4},
}


class ImageReader(AbstractContextManager["ImageReader"]):
    """An open image. `read_rows` gives every row once, from the top, with the facts as attributes.

    Channels are grey, grey and alpha, RGB, or RGB and alpha; values are those of the file, 8 or 16 bit by its type, in
    its own colour space, alpha not multiplied in. To be closed, or used in a `with`.
    """

    def __init__(
        self,
        kind: Kind,
        size: tuple[int, int],
        channels: int,
        depth: Literal[8, 16],
        metadata: Metadata,
        fetch: Callable[[int, int], Rows],
        file: io.BufferedIOBase | None = None,
    ) -> None:
        self.kind = kind
        self.width, self.height = size
        self.channels = channels
        self.depth: Literal[8, 16] = depth
        self.metadata = metadata
        self._fetch: Callable[[int, int], Rows] | None = fetch
        self._file = file
        self._next = 0

    @property
    def grey(self) -> bool:
        return self.channels < 3

    @property
    def has_alpha(self) -> bool:
        return self.channels in {2, 4}

    def read_rows(self, count: int) -> Rows:
        """The next rows as (rows, width, channels), fewer than `count` at the bottom and none below it.

        Raises ValueError where the file turns out to be damaged.
        """
        assert self._fetch is not None, "the reader is closed"
        count = min(count, self.height - self._next)
        if count <= 0:
            none = (0, self.width, self.channels)
            return np.empty(none, np.uint8) if self.depth == 8 else np.empty(none, np.uint16)
        with _readable(self.kind):
            rows = self._fetch(self._next, count)
        self._next += count
        return rows

    def read_all(self) -> Rows:
        """Every row that has not been read yet."""
        return self.read_rows(self.height)

    def close(self) -> None:
        self._fetch = None  # And with it the decoder, its memory and its file.
        if self._file is not None:
            self._file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_image(source: Path | bytes, *, max_pixels: int | None = None) -> ImageReader:
    """Open an image file, told by its content and never by its name, and read its header.

    Raises ValueError for whatever is no still image of 8 or 16 bits with at most `max_pixels`; OSError only for a
    `source` that cannot be read at all.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    try:
        head = file.read(12)
        kind = _kind_of(head)
        with _readable(kind):
            if kind == "BMP":
                file.seek(0)
                return _open_bmp(file, max_pixels)
            if kind == "PNG":
                refuse_animated_png(file)
            strict = kind == "TIFF" or (kind == "JPEG" and not is_odd_jpeg(file))
            tags = tiff_tags(file) if kind == "TIFF" else {}
            file.close()
            return _open_with_libvips(kind, source, max_pixels, strict, tags)
    except BaseException:
        file.close()
        raise


def _kind_of(head: bytes) -> Kind:
    kind = next((kind for signature, kind in SIGNATURES if head.startswith(signature)), None)
    if kind is None or (kind == "WebP" and head[8:] != b"WEBP"):
        raise ValueError("image: not a readable image (it is no PNG, JPEG, WebP, TIFF or BMP)")
    return kind


def _open_bmp(file: io.BytesIO | io.BufferedReader, max_pixels: int | None) -> ImageReader:
    rows = BmpRows(file)
    _judge_size(rows.width, rows.height, max_pixels)
    dpi = rows.dots_per_inch
    metadata = Metadata(dots_per_mm=(dpi[0] / 25.4, dpi[1] / 25.4) if dpi else None)
    return ImageReader("BMP", (rows.width, rows.height), rows.channels, 8, metadata, rows.fetch, file)


def _open_with_libvips(
    kind: Kind, source: Path | bytes, max_pixels: int | None, strict: bool, tags: dict[int, int]
) -> ImageReader:
    def load(access: str) -> pyvips.Image:
        from_file, from_bytes = LOADERS[kind]
        loader, argument = (from_bytes, source) if isinstance(source, bytes) else (from_file, str(source))
        # A tile of a TIFF that cannot be read whole is but a warning to libvips, and stays black. So is damage amid the
        # pixels of a JPEG, which come out as garbage.
        image = loader(argument, access=access, fail_on="warning" if strict else "error")
        assert isinstance(image, pyvips.Image)
        return image

    image = load("sequential")
    _judge_size(image.width, image.height, max_pixels)
    _judge_cost(kind, image, tags)
    if tags.get(PHOTOMETRIC) == YCBCR and tags.get(COMPRESSION) not in JPEG_COMPRESSIONS:
        raise ValueError("its pixels are YCbCr that is not compressed as JPEG; grey, RGB or CMYK is needed")
    if _field(image, "n-pages", 1) > 1:
        raise ValueError("it is animated or has several pages; a still image is needed")
    if _field(image, "orientation", 1) > 2:  # What is turned or stands on its head is not read from top to bottom.
        image = load("random")
    image = _plain(image.autorot())
    depth: Literal[8, 16] = 8 if image.format == "uchar" else 16
    region = pyvips.Region.new(image)
    width, channels = image.width, image.bands

    def fetch(top: int, count: int) -> Rows:
        pixels = region.fetch(0, top, width, count)
        strip = np.frombuffer(pixels, np.uint8) if depth == 8 else np.frombuffer(pixels, np.uint16)
        return strip.reshape(count, width, channels)

    return ImageReader(kind, (width, image.height), channels, depth, metadata_of(image), fetch)


def _plain(image: pyvips.Image) -> pyvips.Image:
    """Grey or RGB with whole numbers, as the file has them; inks become sRGB. Raises ValueError for any other kind."""
    if image.format not in {"uchar", "ushort"}:
        raise ValueError(f"its pixels are of type {image.format}; 8 or 16 bits without sign are needed")
    if image.interpretation == "cmyk" and image.bands in {4, 5}:
        # Through the profile of the file, or libvips' own of CMYK where there is none or a broken one.
        depth = 8 if image.format == "uchar" else 16
        image = image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", depth=depth, black_point_compensation=True
        )
    if image.bands not in CHANNELS.get(image.interpretation, ()):
        raise ValueError(f"it has {image.bands} channels of {image.interpretation}; grey, RGB or CMYK is needed")
    return image


def _judge_size(width: int, height: int, max_pixels: int | None) -> None:
    if max(width, height) > LONGEST_SIDE:
        raise ValueError(f"it has {width}×{height} pixels; no side may be longer than {LONGEST_SIDE}")
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(f"it has {width}×{height} pixels; at most {max_pixels} are accepted")


def _judge_cost(kind: Kind, image: pyvips.Image, tags: dict[int, int]) -> None:
    """Raise where decoding would need memory out of all proportion."""
    pixels = image.width * image.height
    depth_bytes = 1 if image.format == "uchar" else 2
    held = 0
    if kind == "WebP":
        held = pixels * 9  # as measured: a frame and a canvas of 4 bytes a pixel, and the decoder's own
    elif kind == "PNG" and _field(image, "interlaced", 0):
        held = pixels * image.bands * depth_bytes
    elif kind == "JPEG" and _field(image, "interlaced", 0):
        samples = 1.5 if image.get("jpeg-chroma-subsample") == "4:2:0" else image.bands
        held = int(pixels * samples * 2)
    elif kind == "TIFF" and tags.get(PLANAR_CONFIGURATION) == 2 and not _field(image, "tile-width", 0):
        rows = min(tags.get(ROWS_PER_STRIP) or image.height, image.height)
        held = image.width * rows * image.bands * depth_bytes
    if held > MAX_HELD_BYTES:
        how = {"WebP": "as a WebP", "TIFF": "as a plane for each colour in long strips"}.get(kind, "interlaced")
        raise ValueError(
            f"an image of {image.width}×{image.height} pixels, stored {how}, would have to be held whole in memory; "
            "save it as a PNG that is not interlaced, or a TIFF whose colours stand together"
        )
    if _field(image, "tile-width", 0) * _field(image, "tile-height", 0) > MAX_TILE_PIXELS:
        raise ValueError(f"its tiles are larger than {MAX_TILE_PIXELS} pixels")


def _field(image: pyvips.Image, name: str, default: int) -> int:
    value: Any = image.get(name) if image.get_typeof(name) else default
    return int(value)


@contextmanager
def _readable(kind: Kind) -> Iterator[None]:
    """Every way in which a decoder can fail, as one ValueError with a plain sentence."""
    try:
        yield
    except pyvips.Error as error:
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        raise ValueError(f"image: not a readable image (the {kind} is damaged or incomplete: {reason})") from error
    except (ValueError, OSError, SyntaxError, OverflowError, struct.error) as error:
        raise ValueError(f"image: not a readable image (the {kind}: {error})") from error

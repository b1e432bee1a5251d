"""Image files for the tests of reading and writing, made by encoders that the code under test does not use."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

HEIGHT, WIDTH = 37, 31
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def noise(channels: int, depth: int = 8, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    """(h, w, channels) of every value that the depth has, in 8 or 16 bits."""
    levels = np.random.default_rng(seed).integers(0, 1 << depth, (*size, channels))
    return levels.astype(np.uint8) if depth <= 8 else levels.astype(np.uint16)


def smooth(channels: int = 3) -> NDArray[np.uint8]:
    """A picture that lossy formats keep within a few levels."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [60 + 3 * x, 200 - 3 * y, 40 + 2 * x + 2 * y, 255 - 4 * x]
    return np.stack(planes[:channels], axis=2).clip(0, 255).astype(np.uint8)


def pillow(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def from_array(pixels: Pixels, file_format: str = "PNG", **options: object) -> bytes:
    return pillow(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), file_format, **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(pixels: Pixels, depth: int, before: bytes = b"") -> bytes:
    """A PNG of any bit depth by the letter of the standard, no row filtered; `before` are chunks before the pixels."""
    height, width, channels = pixels.shape
    samples = pixels.reshape(height, width * channels)
    if depth == 16:
        rows = samples.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    rows = np.pad(rows, ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", width, height, depth, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    content = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def png_pixels(file: bytes) -> Pixels:
    """The pixels of a PNG whose rows are unfiltered or filtered by the row above, as (h, w, c) in 8 or 16 bits."""
    position, compressed = 8, b""
    width, height, depth, colour_type = struct.unpack(">IIBB", file[16:26])
    while position < len(file):
        length, name = struct.unpack(">I4s", file[position : position + 8])
        compressed += file[position + 8 : position + 8 + length] if name == b"IDAT" else b""
        position += 12 + length
    rows = np.frombuffer(zlib.decompress(compressed), np.uint8).reshape(height, -1)
    filters, pixels = rows[:, 0], rows[:, 1:].copy()
    assert set(filters.tolist()) <= {0, 2}
    for y in range(1, height):
        if filters[y] == 2:
            pixels[y] += pixels[y - 1]
    channels = {kind: count for count, kind in PNG_COLOUR_TYPES.items()}[colour_type]
    values = pixels.view(">u2").astype(np.uint16) if depth == 16 else pixels
    return values.reshape(height, width, channels)


def tiff(pixels: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    channels = pixels.shape[2]
    options.setdefault("photometric", "minisblack" if channels < 3 else "rgb")
    if channels in {2, 4} and options["photometric"] != "separated":
        options.setdefault("extrasamples", ["unassalpha"])
    tifffile.imwrite(buffer, pixels.squeeze(2) if channels == 1 else pixels, **options)
    return buffer.getvalue()


def animation(file_format: str) -> bytes:
    frames = [Image.fromarray(noise(3, seed=seed)) for seed in (1, 2)]
    return pillow(frames[0], file_format, save_all=True, append_images=frames[1:])


def png_claiming(width: int, height: int) -> bytes:
    """A header that promises more than follows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


# One file of every kind that is read, for what must hold of all of them.
KINDS: dict[str, bytes] = {
    "png": from_array(smooth()),
    "png-16": png(noise(4, 16), 16),
    "png-palette": pillow(Image.fromarray(smooth()).quantize(16)),
    "jpeg": from_array(smooth(), "JPEG", quality=90),
    "jpeg-progressive": from_array(smooth(), "JPEG", quality=90, progressive=True),
    "jpeg-cmyk": pillow(Image.fromarray(smooth()).convert("CMYK"), "JPEG"),
    "webp": from_array(smooth(), "WEBP"),
    "webp-lossless": from_array(smooth(4), "WEBP", lossless=True),
    "tiff": from_array(smooth(), "TIFF"),
    "tiff-lzw": from_array(smooth(), "TIFF", compression="tiff_lzw"),
    "tiff-16": tiff(noise(3, 16), compression="zlib"),
    "tiff-tiles": tiff(noise(3, 16), tile=(16, 16)),
    "tiff-jpeg": from_array(smooth(), "TIFF", compression="jpeg"),
    "bmp": from_array(smooth(), "BMP"),
}

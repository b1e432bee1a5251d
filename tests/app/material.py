"""Image files, good and hostile, and the forms and zips that carry them."""

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Files = list[tuple[str, tuple[str, bytes]]]


def pixels(width: int = 83, height: int = 71, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth random picture with structure at all scales, odd-sized unless told otherwise."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    grain = generator.normal(0, 12, (height, width, 3))
    return np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)


def noisy(image: NDArray[np.uint8], sigma: float = 10.0, seed: int = 1) -> NDArray[np.uint8]:
    spoiled = image + np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(spoiled, 0, 255).astype(np.uint8)


def encoded(image: NDArray[Any] | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def pair_files(count: int = 3, width: int = 83, height: int = 71) -> Files:
    """`count` pairs as form files, paired by name; the distorted ones are JPEG."""
    files: Files = []
    for number in range(count):
        clean = pixels(width, height, seed=number)
        files.append(("clean", (f"{number:03}.png", encoded(clean))))
        files.append(("distorted", (f"{number:03}.jpg", encoded(noisy(clean), "JPEG", quality=70))))
    return files


def zipped(entries: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_of(files: Files, folder: str = "") -> bytes:
    return zipped([(f"{folder}{field}/{name}", content) for field, (name, content) in files])


def with_file(files: Files, place: int, content: bytes, name: str | None = None) -> Files:
    """The files with one of them replaced."""
    changed = list(files)
    field, (old_name, _) = changed[place]
    changed[place] = (field, (name or old_name, content))
    return changed


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A small, valid PNG of a huge black picture."""
    packer = zlib.compressobj(9)
    rows = b"\0" * (1 + width)
    data = b"".join(packer.compress(rows) for _ in range(200)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animation(file_format: str) -> bytes:
    frames = [Image.fromarray(pixels(seed=seed)) for seed in range(3)]
    return encoded(frames[0], file_format, save_all=True, append_images=frames[1:], duration=40)

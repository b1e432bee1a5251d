"""Whatever a stranger may send as an image file: a whole image or a ValueError, soon."""

import gc
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from ml.image_reader import open_image
from tests.ml.image_corpus import KINDS, PROFILE, Pixels, pillow
from tests.ml.test_image_reader import read


def outcome(file: bytes) -> Pixels | None:
    """The whole image, or None where the file is refused as it should be: soon, and with a sentence."""
    started = time.process_time()
    try:
        with open_image(file, max_pixels=1_000_000) as reader:
            strips: list[NDArray[Any]] = [reader.read_rows(16) for _ in range(0, reader.height, 16)]
            pixels: Pixels = np.concatenate(strips)
            assert len(pixels) == reader.height
    except ValueError as error:
        if not str(error).startswith("image: "):
            raise
        return None
    finally:
        assert time.process_time() - started < 5
    return pixels


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_cut_off_at_any_percent_is_refused_unless_every_pixel_is_there(kind: str) -> None:
    whole = KINDS[kind]
    pixels = outcome(whole)
    assert pixels is not None
    refused = 0
    for percent in range(100):
        found = outcome(whole[: len(whole) * percent // 100])
        refused += found is None
        assert found is None or np.array_equal(found, pixels)
    assert refused >= 85  # A PNG's last chunk is empty, and what an encoder pads with may be missing.


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_with_flipped_bits_is_refused_or_read(kind: str) -> None:
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(200):
        file = bytearray(KINDS[kind])
        for position in random.integers(0, len(file), random.integers(1, 9)):
            file[position] ^= 1 << int(random.integers(8))
        refused += outcome(bytes(file)) is None
    assert refused > 0


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_with_a_damaged_header_is_refused_or_read(kind: str) -> None:
    random = np.random.default_rng(8)
    for _ in range(200):
        file = bytearray(KINDS[kind])
        for position in random.integers(0, min(120, len(file)), random.integers(1, 4)):
            file[position] = int(random.choice([0, 1, 127, 128, 255, int(random.integers(256))]))
        outcome(bytes(file))


def photograph() -> Image.Image:
    """A picture of some size with noise, so that its JPEG is more than a few blocks."""
    y, x = np.mgrid[0:200, 0:240]
    scene = np.stack([128 + 80 * np.sin(x / 9), x * 0.6 + y * 0.3, y * 0.8], axis=2)
    grain = np.random.default_rng(1).normal(0, 6, scene.shape)
    return Image.fromarray((scene + grain).clip(0, 255).astype(np.uint8))


JPEGS: dict[str, dict[str, object]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4},
    "coarse colours": {"subsampling": 2, "optimize": True},
}


@pytest.mark.parametrize("how", JPEGS)
@pytest.mark.parametrize("filling", ["zeros", "random"])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_a_jpeg_that_was_overwritten_in_its_midst_is_refused(how: str, filling: str, share: float) -> None:
    file = bytearray(pillow(photograph(), "JPEG", quality=85, **JPEGS[how]))
    start, length = int(len(file) * share), 2048
    file[start : start + length] = bytes(length) if filling == "zeros" else np.random.default_rng(2).bytes(length)
    with open_image(bytes(file)) as reader, pytest.raises(ValueError, match="damaged"):
        reader.read_all()


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


ODDITIES = {
    "bytes behind the end": lambda file: file + b"\0" * 100,
    "another JPEG behind the end": lambda file: file + file,
    "zeros before the end": lambda file: file[:-2] + b"\0" * 100 + file[-2:],
    "zeros before and behind the end": lambda file: file[:-2] + b"\0" * 3 + file[-2:] + b"\0" * 512,
    "EXIF that is none": lambda file: file[:2] + segment(0xE1, b"Exif\0\0garbage") + file[2:],
    "EXIF that ends nowhere": lambda file: file[:2] + segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff") + file[2:],
    "a JFIF of revision 2": lambda file: file[:2] + segment(0xE0, b"JFIF\0\2\1\0\0\1\0\1\0\0") + file[20:],
    "bytes between segments": lambda file: file[:20] + b"\0\0\0" + file[20:],
    "filled-up markers": lambda file: file[:20] + b"\xff\xff\xff" + file[20:],
    "an unknown segment": lambda file: file[:20] + segment(0xEF, b"x" * 100) + file[20:],
    "a part of a profile": lambda file: file[:20] + segment(0xE2, b"ICC_PROFILE\0\2\2" + PROFILE) + file[20:],
}


@pytest.mark.parametrize("how", JPEGS)
@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_is_odd_beside_the_pixels_of_a_jpeg_does_no_harm(how: str, oddity: str) -> None:
    file = pillow(photograph(), "JPEG", quality=85, **JPEGS[how])
    assert np.array_equal(read(ODDITIES[oddity](file)), read(file))


def test_of_a_jpeg_with_previews_behind_it_the_first_image_is_read() -> None:
    file = pillow(photograph(), "MPO", save_all=True, append_images=[photograph()])
    assert np.array_equal(read(file), read(pillow(photograph(), "JPEG")))


@pytest.mark.parametrize("first", ["png", "jpeg", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("second", ["png", "jpeg"])
def test_of_two_files_in_one_the_first_is_read(first: str, second: str) -> None:
    assert np.array_equal(read(KINDS[first] + KINDS[second]), read(KINDS[first]))
    assert np.array_equal(read(KINDS[first] + b"PK\x03\x04<script>"), read(KINDS[first]))


def test_hundreds_of_files_leave_neither_memory_nor_open_files(tmp_path: Path) -> None:
    process = psutil.Process()
    files = [*KINDS.values(), *(content[: len(content) // 2] for content in KINDS.values())]
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)

    def run(times: int) -> tuple[int, int]:
        for _ in range(times):
            for path in paths:
                try:
                    with open_image(path) as reader:
                        reader.read_rows(20)  # Not to the end, as where a job is cancelled.
                except ValueError:
                    pass
        gc.collect()
        return process.memory_info().rss, process.num_fds()

    _, files_before = run(2)
    memory_before, _ = run(5)
    memory_after, files_after = run(30)
    assert files_after == files_before
    assert memory_after - memory_before < 8 << 20

"""The API's look at image files: by the header alone, with bounded memory, and never with an error of its own."""

import io
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile
from PIL import Image

from app.api.images import MAX_HEADER_BYTES, MAX_TIFF_PLANES_BYTES, check_header
from app.core.errors import BadImage, ServiceError, TooLarge, UnsupportedMedia
from ml.image_reader import open_image
from tests.app.material import animation, chunk, encoded, pixels, png_bomb

MANY = 200_000_000
FILES = {
    "png": encoded(pixels()),
    "png-16": encoded(Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257)),
    "png-palette": encoded(Image.fromarray(pixels()).quantize(16)),
    "jpeg": encoded(pixels(), "JPEG"),
    "jpeg-progressive": encoded(pixels(), "JPEG", progressive=True),
    "jpeg-cmyk": encoded(Image.fromarray(pixels()).convert("CMYK"), "JPEG"),
    "webp": encoded(pixels(), "WEBP"),
    "webp-lossless": encoded(pixels(), "WEBP", lossless=True),
    "webp-extended": encoded(pixels(), "WEBP", icc_profile=b"\0" * 200),
    "tiff": encoded(pixels(), "TIFF"),
    "tiff-lzw": encoded(pixels(), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(pixels(), "BMP"),
}
every_kind = pytest.mark.parametrize("kind", FILES)


def refusal(file: bytes, max_pixels: int = MANY) -> ServiceError | None:
    started, error = time.process_time(), None
    try:
        check_header(io.BytesIO(file), max_pixels)
    except ServiceError as refused:
        error = refused
    assert error is None or error.status in {413, 415, 422}
    assert time.process_time() - started < 5
    return error


@every_kind
def test_a_whole_image_is_accepted_whatever_its_name(kind: str) -> None:
    assert refusal(FILES[kind]) is None


@every_kind
def test_the_limit_of_pixels_is_exact(kind: str) -> None:
    assert refusal(FILES[kind], max_pixels=83 * 71) is None
    assert isinstance(refusal(FILES[kind], max_pixels=83 * 71 - 1), TooLarge)


@every_kind
def test_a_file_cut_off_at_any_percent_is_refused(kind: str) -> None:
    whole = FILES[kind]
    for percent in range(100):
        assert isinstance(refusal(whole[: len(whole) * percent // 100]), (BadImage, UnsupportedMedia)), percent


@every_kind
def test_a_file_with_flipped_bits_is_accepted_or_refused_but_fails_in_no_other_way(kind: str) -> None:
    random = np.random.default_rng(3)
    for place in ("anywhere", "header"):
        for _ in range(150):
            file = bytearray(FILES[kind])
            for position in random.integers(0, len(file) if place == "anywhere" else 120, random.integers(1, 6)):
                file[position] ^= 1 << int(random.integers(8))
            refusal(bytes(file), max_pixels=1_000_000)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_what_moves_or_has_pages_is_refused(file_format: str) -> None:
    error = refusal(animation(file_format))
    assert isinstance(error, BadImage)
    assert "animated" in error.detail or "pages" in error.detail


def tiff_of_planes(width: int, height: int, rows: int, together: bool = False) -> bytes:
    """A TIFF of 16-bit RGB, a plane for each colour, which promises more pixels than it has bytes."""
    strips = -(-height // rows) * (1 if together else 3)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 0), (259, 3, 1, 8), (262, 3, 1, 2)]
    tags += [(273, 4, strips, 0), (277, 3, 1, 3), (278, 4, 1, rows), (279, 4, strips, 0)]
    tags += [(284, 3, 1, 1 if together else 2)]
    values = {258: struct.pack("<3H", 16, 16, 16), 273: struct.pack("<I", 8) * strips, 279: bytes(4) * strips}
    start = 8 + 2 + 12 * len(tags) + 4
    directory, behind = struct.pack("<H", len(tags)), b""
    for tag, kind, count, value in tags:
        outside = len(values.get(tag, b"")) > 4
        inline = struct.pack("<I", start + len(behind)) if outside else values.get(tag, struct.pack("<I", value))
        directory += struct.pack("<HHI", tag, kind, count) + inline
        behind += values[tag] if outside else b""
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + behind


def test_of_separate_planes_in_a_tiff_the_strips_that_are_held_are_limited() -> None:
    most = MAX_TIFF_PLANES_BYTES // (3 * 2 * 16_384)
    assert refusal(tiff_of_planes(16_384, most, rows=most)) is None
    for rows in (most + 1, 1 << 31):
        error = refusal(tiff_of_planes(16_384, most + 1, rows))
        assert isinstance(error, TooLarge)
        assert "planes" in error.detail
    assert refusal(tiff_of_planes(16_384, most + 1, rows=16)) is None
    assert refusal(tiff_of_planes(16_384, most + 1, rows=most + 1, together=True)) is None


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw", "jpeg"])
def test_ycbcr_in_a_tiff_is_refused_unless_it_is_jpeg(compression: str | None) -> None:
    colours = Image.fromarray(pixels()).convert("YCbCr")
    options = {"compression": compression} if compression else {}
    error = refusal(encoded(colours, "TIFF", tiffinfo={530: (1, 1)}, **options))
    assert error is None if compression == "jpeg" else isinstance(error, BadImage) and "YCbCr" in error.detail


TIFF_CHANNELS: dict[str, tuple[str, int, tuple[int, ...], bool]] = {  # colours, channels, what is said of further ones
    "grey": ("minisblack", 1, (), True),
    "grey and opacity": ("minisblack", 2, (2,), True),
    "RGB": ("rgb", 3, (), True),
    "RGB and opacity": ("rgb", 4, (2,), True),
    "RGB and something": ("rgb", 4, (0,), True),
    "RGB and two": ("rgb", 5, (0, 0), False),
    "RGB, opacity and something": ("rgb", 5, (2, 0), False),
    "CMYK": ("separated", 4, (), True),
    "CMYK and something": ("separated", 5, (0,), True),
    "CMYK and two": ("separated", 6, (0, 0), False),
}


@pytest.mark.parametrize("kind", TIFF_CHANNELS)
def test_a_tiff_passes_by_its_channels_where_a_worker_reads_it(kind: str) -> None:
    colours, channels, further, passes = TIFF_CHANNELS[kind]
    file = io.BytesIO()
    shown = np.full((8, 8, channels) if channels > 1 else (8, 8), 90, np.uint8)
    tifffile.imwrite(file, shown, photometric=colours, extrasamples=further or None, planarconfig=1)
    error = refusal(file.getvalue())
    assert (error is None) == passes, error
    assert error is None or f"{channels} channels" in error.detail
    with nullcontext() if passes else pytest.raises(ValueError, match="channels"):
        open_image(file.getvalue()).read_all()


def test_a_tiff_with_a_channel_that_it_does_not_declare_is_refused() -> None:
    """tifffile declares every channel, so that the tag is renamed to one that nobody knows."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.full((8, 8, 4), 90, np.uint8), photometric="rgb", extrasamples=(0,), byteorder="<")
    undeclared = file.getvalue().replace(struct.pack("<HHI", 338, 3, 1), struct.pack("<HHI", 337, 3, 1))
    error = refusal(undeclared)
    assert isinstance(error, BadImage)
    assert "4 channels" in error.detail
    with pytest.raises(ValueError, match="not a readable image"):
        open_image(undeclared).read_all()


def grey_tiff(bits: int, sample_format: int) -> bytes:
    """A TIFF of one row of black pixels."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, bits), (339, 3, 1, sample_format)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4 + bits)


@pytest.mark.parametrize(("bits", "sample_format"), [(12, 1), (32, 1), (8, 2), (16, 2), (32, 2)])
def test_a_tiff_of_other_depths_or_with_sign_is_refused(bits: int, sample_format: int) -> None:
    error = refusal(grey_tiff(bits, sample_format))
    assert isinstance(error, BadImage)
    assert f"{bits} bits" in error.detail
    assert "8 or 16 bits without sign are needed" in error.detail


@pytest.mark.parametrize(("channels", "kind"), [(1, np.float32), (3, np.float32), (3, np.float16), (3, np.float64)])
def test_a_tiff_of_floating_point_is_told_how_to_export_it(channels: int, kind: type[np.floating]) -> None:
    buffer = io.BytesIO()
    colours = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(buffer, np.zeros((37, 31, channels), kind).squeeze(), photometric=colours)
    error = refusal(buffer.getvalue())
    assert isinstance(error, BadImage)
    bits = np.dtype(kind).itemsize * 8
    assert error.detail == f"The TIFF has pixels of {bits}-bit floating point; export it with 8 or 16 bits."


def test_a_camera_s_dng_is_not_taken_for_its_preview() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels(), photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    error = refusal(buffer.getvalue())
    assert isinstance(error, UnsupportedMedia)
    assert error.detail == "It is a DNG file; convert it to PNG, TIFF or JPEG."


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "an AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
        (b"P6\n31 37\n255\n", "a PNM"),
        (b"\0\0\1\0\1\0 ", "an ICO"),
        (b"FUJIFILMCCD-RAW 0201", "a raw"),
        (b"II*\0\x10\0\0\0CR\2\0", "a raw"),
    ],
)
def test_an_image_of_another_format_is_named_with_the_remedy(start: bytes, name: str) -> None:
    error = refusal(start + bytes(500))
    assert isinstance(error, UnsupportedMedia)
    assert error.detail == f"It is {name} file; convert it to PNG, TIFF or JPEG."


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_a_tiff_of_up_to_sixteen_bits_without_sign_is_accepted(bits: int) -> None:
    assert refusal(grey_tiff(bits, 1)) is None


def test_a_bomb_is_refused() -> None:
    assert isinstance(refusal(png_bomb()), TooLarge)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "bmp"])
def test_what_hangs_behind_an_image_does_not_matter(kind: str) -> None:
    assert refusal(FILES[kind] + b"PK\x03\x04<script>alert(1)</script>") is None
    assert isinstance(refusal(b"<script>" + FILES[kind]), UnsupportedMedia)


def segment(content: bytes, marker: bytes = b"\xff\xe1") -> bytes:
    return marker + struct.pack(">H", 2 + len(content)) + content


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-progressive", "jpeg-cmyk"])
@pytest.mark.parametrize("length", [1, 2, 1 << 19, 1 << 20, 10 << 20])
def test_a_video_behind_a_jpeg_does_not_matter(kind: str, length: int) -> None:
    for seed in range(3):
        video = np.random.default_rng(seed).bytes(length)
        assert refusal(FILES[kind] + video) is None


@pytest.mark.parametrize("marker", [b"\xff\xda", b"\xff\xd9", b"\xff\xd8\xff"])
def test_markers_behind_a_jpeg_do_not_count(marker: bytes) -> None:
    assert refusal(FILES["jpeg"] + marker * 20_000) is None


def test_a_second_jpeg_behind_the_first_may_be_cut_but_the_first_may_not() -> None:
    second = Image.fromarray(pixels(seed=1))
    both = encoded(pixels(), "MPO", save_all=True, append_images=[second])
    first = both.index(b"\xff\xd9\xff\xd8") + 2
    assert first < len(both) - 1000
    for length in (len(both), len(both) - 1000, first + 1000, first):
        assert refusal(both[:length]) is None, length
    for length in (first - 2, first // 2):
        assert isinstance(refusal(both[:length]), BadImage), length


def test_the_scans_and_the_end_of_previews_do_not_count() -> None:
    previews = segment(b"Exif\0\0" + FILES["jpeg"]) * 150
    whole = FILES["jpeg"][:2] + previews + FILES["jpeg"][2:]
    assert refusal(whole) is None
    assert isinstance(refusal(whole[:-2]), BadImage)
    assert isinstance(refusal(whole[: len(previews) + 300]), BadImage)


def test_scans_that_lie_behind_a_marker_without_a_length_count() -> None:
    """Where restarts are expected, a decoder looks for the next marker right behind one that it does not know."""
    file = FILES["jpeg"]
    scan = file[file.index(b"\xff\xda") : -2]
    assert "scans" in str(refusal(file[:-2] + b"\xff\x02\xff\xff" + scan * 101 + file[-2:]))


@pytest.mark.parametrize("filling", [b"\xff\x00", b"\xff\xff", b"\xff\xd0", b"\xff\xe0\x00\x02", b"\xff\x02"])
def test_fifty_megabytes_of_marks_are_judged_in_time(filling: bytes) -> None:
    error = refusal(FILES["jpeg"][:-2] + filling * ((50 << 20) // len(filling)) + FILES["jpeg"][-2:])
    assert error is None or "segments" in str(error)


def long_png() -> bytes:
    return FILES["png"][:33] + chunk(b"iCCP", b"x\0\0" + bytes(48 << 20)) + FILES["png"][33:]


def long_jpeg() -> bytes:
    return FILES["jpeg"][:2] + segment(bytes(65_533), b"\xff\xe5") * 800 + FILES["jpeg"][2:]


def long_tiff() -> bytes:
    """One tag that claims 48 MiB of text."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (270, 2, 48 << 20, 200)]
    tags += [(273, 4, 1, 8), (278, 4, 1, 8), (279, 4, 1, 64)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(48 << 20)


def long_webp() -> bytes:
    content = FILES["webp"][8:] + b"JUNK" + struct.pack("<I", 48 << 20) + bytes(48 << 20)
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("make", [long_png, long_jpeg, long_tiff, long_webp])
def test_a_header_without_end_costs_no_memory(make: Callable[[], bytes]) -> None:
    file = make()
    tracemalloc.start()
    error = refusal(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_HEADER_BYTES
    # Of a WebP only the first bytes are looked at.
    assert error is None if make is long_webp else str(MAX_HEADER_BYTES) in str(error)


def test_a_png_of_countless_chunks_is_given_up() -> None:
    file = FILES["png"][:-12] + chunk(b"IDAT", b"") * 600_000
    assert "chunks" in str(refusal(file))

"""Reading image files: every kind against an independent decoder, and what is refused by its header."""

import io
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ml.image_reader import MAX_HELD_BYTES, open_image
from ml.libvips import pyvips
from tests.ml import image_corpus as corpus
from tests.ml.image_corpus import HEIGHT, KINDS, PROFILE, WIDTH, Pixels, from_array, noise, pillow, png, smooth, tiff


def read(file: bytes) -> Pixels:
    with open_image(file) as reader:
        pixels = reader.read_all()
        assert pixels.shape == (reader.height, reader.width, reader.channels)
        assert pixels.dtype.itemsize * 8 == reader.depth
        assert len(reader.read_rows(1)) == 0
        return pixels


# What is read


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_is_read_as_it_is(channels: int, depth: int) -> None:
    pixels = noise(channels, depth)
    assert np.array_equal(read(png(pixels, depth)), pixels)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_is_stretched_to_eight(depth: int) -> None:
    levels = noise(1, depth)
    assert np.array_equal(read(png(levels, depth)), levels * (255 // (2**depth - 1)))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_a_bilevel_image_is_black_and_white(file_format: str) -> None:
    stored = Image.fromarray(noise(1)[..., 0] > 127)
    assert np.array_equal(read(pillow(stored, file_format))[..., 0], np.asarray(stored) * 255)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("colours", [2, 13, 200])
def test_a_palette_becomes_its_colours(file_format: str, colours: int) -> None:
    stored = Image.fromarray(noise(3)).quantize(colours)
    assert np.array_equal(read(pillow(stored, file_format)), np.asarray(stored.convert("RGB")))


def test_the_transparency_of_a_palette_and_of_a_colour_becomes_alpha() -> None:
    palette = Image.fromarray(smooth()).quantize(16)
    assert np.array_equal(read(pillow(palette, transparency=3))[..., 3] == 0, np.asarray(palette) == 3)
    colours = smooth()
    colours[5:9, 3:7] = 1, 2, 3
    keyed = read(from_array(colours, transparency=(1, 2, 3)))
    assert np.array_equal(keyed[..., :3], colours)
    assert np.array_equal(keyed[..., 3] == 0, (colours == (1, 2, 3)).all(axis=2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_jpeg_is_read_as_pillow_reads_it(channels: int, progressive: bool, subsampling: int) -> None:
    file = from_array(smooth(channels), "JPEG", quality=90, progressive=progressive, subsampling=subsampling)
    expected = np.asarray(Image.open(io.BytesIO(file))).reshape(HEIGHT, WIDTH, channels).astype(int)
    assert np.abs(read(file) - expected).max() <= 1


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_read_as_pillow_reads_it(channels: int, lossless: bool) -> None:
    file = from_array(smooth(channels), "WEBP", lossless=lossless, exact=True)
    assert np.array_equal(read(file), np.asarray(Image.open(io.BytesIO(file))))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 5},
        {"tile": (16, 32)},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib", "predictor": True},
    ],
    ids=str,
)
def test_a_tiff_is_read_as_it_is(channels: int, depth: int, layout: dict[str, object]) -> None:
    pixels = noise(channels, depth)
    assert np.array_equal(read(tiff(pixels, **layout)), pixels)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_tiff_of_separate_planes_is_read_as_it_is(channels: int, depth: int) -> None:
    pixels = noise(channels, depth)
    assert np.array_equal(read(tiff_of_planes(pixels)), pixels)


def tiff_of_planes(pixels: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    extra = ["unassalpha"] if pixels.shape[2] == 4 else None
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", extrasamples=extra, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff_is_read_as_it_is(compression: str) -> None:
    assert np.array_equal(read(from_array(noise(3), "TIFF", compression=compression)), noise(3))


def test_a_tiff_of_jpeg_is_close() -> None:
    file = from_array(smooth(), "TIFF", compression="jpeg", quality=95)
    assert np.abs(read(file).astype(int) - smooth()).max() < 12


@pytest.mark.parametrize("depth", [8, 16])
def test_where_zero_is_white_the_values_are_turned_round(depth: int) -> None:
    stored = noise(1, depth)
    brightest = np.iinfo(stored.dtype).max
    assert np.array_equal(read(tiff(stored, photometric="miniswhite")), brightest - stored)


def test_alpha_that_is_multiplied_in_is_divided_out() -> None:
    straight = noise(4)
    straight[..., 3] |= 128
    multiplied = straight.astype(float)
    multiplied[..., :3] *= multiplied[..., 3:] / 255
    file = tiff(multiplied.round().astype(np.uint8), extrasamples=["assocalpha"])
    assert np.abs(read(file).astype(int) - straight).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_bmp_is_read_as_pillow_reads_it(mode: str) -> None:
    file = pillow(Image.fromarray(noise(4)).convert(mode), "BMP")
    expected = Image.open(io.BytesIO(file))
    assert np.array_equal(read(file).squeeze(), np.asarray(expected))


def test_a_bmp_from_top_to_bottom_is_upright() -> None:
    rows = np.pad(noise(3)[..., ::-1].reshape(HEIGHT, -1), ((0, 0), (0, -3 * WIDTH % 4)))
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, -HEIGHT, 1, 24, 0, rows.size, 0, 0, 0, 0)
    file = b"BM" + struct.pack("<IHHI", 54 + rows.size, 0, 0, 54) + header + rows.tobytes()
    assert np.array_equal(read(file), noise(3))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("ink", "channels"),
    [("cyan", (0, 150, 220)), ("magenta", (220, 0, 130)), ("yellow", (255, 240, 0)), ("paper", (255, 255, 255))],
)
def test_inks_become_the_colours_that_they_print(file_format: str, ink: str, channels: tuple[int, int, int]) -> None:
    inks = {"cyan": (255, 0, 0, 0), "magenta": (0, 255, 0, 0), "yellow": (0, 0, 255, 0), "paper": (0, 0, 0, 0)}[ink]
    with open_image(pillow(Image.new("CMYK", (WIDTH, HEIGHT), inks), file_format)) as reader:
        pixels, profile = reader.read_all(), reader.metadata.icc_profile
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels.mean(axis=(0, 1)) - channels).max() < 45
    assert profile is None or profile[16:20] == b"RGB "


def upright() -> NDArray[np.uint8]:
    """Four fields of one colour each, none alike, on a canvas of unequal sides; 16 divides them for JPEG's blocks."""
    pixels = np.zeros((64, 32, 3), dtype=np.uint8)
    pixels[:32, :16], pixels[:32, 16:], pixels[32:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_read_upright_in_strips_too(orientation: int, file_format: str) -> None:
    """The turn for each value is spelled out with NumPy (EXIF 2.32, tag 0x0112)."""
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright())
    exif = Image.Exif()
    exif[0x0112] = orientation
    faithful: dict[str, dict[str, object]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = faithful.get(file_format, {})
    with open_image(from_array(np.ascontiguousarray(stored), file_format, exif=exif, **options)) as reader:
        assert (reader.width, reader.height) == (32, 64)
        rows = np.concatenate([reader.read_rows(7) for _ in range(10)])
    assert np.abs(rows.astype(int) - upright()).max() < 6


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(sorted(KINDS)), counts=st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_strips_of_any_height_make_the_whole(kind: str, counts: list[int]) -> None:
    with open_image(KINDS[kind]) as reader:
        strips = [reader.read_rows(count) for count in counts]
        assert [len(strip) for strip in strips if len(strip)] == list(expected_heights(counts))
        assert np.array_equal(np.concatenate([*strips, reader.read_all()]), read(KINDS[kind]))


def expected_heights(counts: list[int]) -> list[int]:
    done, heights = 0, []
    for count in counts:
        if (height := min(count, HEIGHT - done)) > 0:
            heights.append(height)
            done += height
    return heights


def test_a_file_on_disk_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "no name[page=3,unlimited].jpg"
    path.write_bytes(png(noise(3, 16), 16))
    with open_image(path) as reader:
        assert reader.kind == "PNG"
        assert np.array_equal(reader.read_all(), noise(3, 16))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_what_the_file_says_beside_its_pixels_is_found(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    options = {} if file_format == "TIFF" else {"exif": exif}
    file = from_array(smooth(), file_format, icc_profile=PROFILE, dpi=(300, 150), **options)
    with open_image(file) as reader:
        found = reader.metadata
    assert found.icc_profile == PROFILE
    if file_format != "TIFF":
        assert found.exif is not None
        assert b"maker" in found.exif
    if file_format != "WEBP":
        assert found.dots_per_mm == pytest.approx((300 / 25.4, 150 / 25.4), rel=1e-3)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("padding", [1, 4, 100])
def test_what_a_profile_is_padded_with_is_cut_off(file_format: str, padding: int) -> None:
    with open_image(from_array(smooth(), file_format, icc_profile=PROFILE + b"\0" * padding)) as reader:
        assert reader.metadata.icc_profile == PROFILE


def profile_of(size: int, version: int = PROFILE[8]) -> bytes:
    """A profile that says it has this size and version."""
    return struct.pack(">I", size) + PROFILE[4:8] + bytes([version]) + PROFILE[9:]


@pytest.mark.parametrize(
    "profile",
    [PROFILE[:-8], PROFILE[:127], profile_of(127), profile_of(0), profile_of(1 << 31), profile_of(len(PROFILE) - 1, 4)],
    ids=["cut", "short", "shorter", "nothing", "endless", "odd"],
)
def test_a_profile_of_another_length_than_it_says_is_left_out(profile: bytes) -> None:
    with open_image(from_array(smooth(), "JPEG", icc_profile=profile)) as reader:
        assert reader.metadata.icc_profile is None


def test_a_profile_that_is_none_is_left_out() -> None:
    with open_image(from_array(smooth(), icc_profile=b"\0" * 200)) as reader:
        assert reader.metadata.icc_profile is None


# What is refused


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"no image at all",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"%PDF-1.7",
        from_array(smooth(), "GIF"),
        from_array(smooth(), "PPM"),
    ],
    ids=["empty", "text", "svg", "wave", "pdf", "gif", "ppm"],
)
def test_what_is_no_image_of_these_formats_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match="no PNG, JPEG, WebP, TIFF or BMP"):
        open_image(file)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_what_moves_or_has_pages_is_refused(file_format: str) -> None:
    with pytest.raises(ValueError, match="animated"):
        open_image(corpus.animation(file_format))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int8, np.uint32])
def test_pixels_of_other_types_are_refused(kind: type[np.generic]) -> None:
    with pytest.raises(ValueError, match="not a readable image"):
        open_image(tiff(noise(1).astype(kind)))


@pytest.mark.parametrize("channels", [5, 6])
def test_more_channels_than_colours_and_alpha_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match="channels"):
        open_image(tiff(noise(channels), extrasamples=["unspecified"] * (channels - 3)))


@pytest.mark.parametrize("size", [(100_000, 100_000), (1, 1 << 20), (1 << 30, 1 << 30), (0, 5)])
def test_absurd_sizes_are_refused_by_the_header_alone(size: tuple[int, int]) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="readable"):
        open_image(corpus.png_claiming(*size), max_pixels=200_000_000)
    assert time.process_time() - started < 1


def test_a_header_that_promises_more_than_follows_costs_no_memory() -> None:
    before = psutil.Process().memory_info().rss
    with open_image(corpus.png_claiming(14_000, 14_000)) as reader, pytest.raises(ValueError, match="damaged"):
        reader.read_rows(64)
    assert psutil.Process().memory_info().rss - before < 100 << 20


def test_what_would_be_held_whole_is_refused_beyond_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pyvips.Image.black(64, 64, bands=3).copy(interpretation="srgb")
    interlaced, progressive = image.pngsave_buffer(interlace=True), image.jpegsave_buffer(interlace=True)
    assert MAX_HELD_BYTES > 500 << 20
    for file in (interlaced, progressive, from_array(smooth(), "WEBP")):
        assert read(file).size > 0
    monkeypatch.setattr("ml.image_reader.MAX_HELD_BYTES", 1000)
    for file in (interlaced, progressive, from_array(smooth(), "WEBP")):
        with pytest.raises(ValueError, match="held whole"):
            open_image(file)
    assert read(from_array(smooth())).size > 0


@pytest.mark.parametrize("rows", [None, 1000])
@pytest.mark.parametrize("layout", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}])
def test_of_separate_planes_a_strip_each_is_held(
    rows: int | None, layout: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = (tiff_of_planes(noise(4, 16), rowsperstrip=count, **layout) for count in (rows or HEIGHT, 5))
    together = tiff(noise(4, 16), rowsperstrip=HEIGHT, **layout)
    monkeypatch.setattr("ml.image_reader.MAX_HELD_BYTES", HEIGHT * WIDTH * 4 * 2)
    assert read(long).size > 0
    monkeypatch.setattr("ml.image_reader.MAX_HELD_BYTES", HEIGHT * WIDTH * 4 * 2 - 1)
    with pytest.raises(ValueError, match="held whole"):
        open_image(long)
    for file in (short, together):
        assert np.array_equal(read(file), noise(4, 16))


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw"])
def test_ycbcr_in_a_tiff_is_refused_unless_it_is_jpeg(compression: str | None) -> None:
    colours = Image.fromarray(smooth()).convert("YCbCr")
    options = {"compression": compression} if compression else {}
    with pytest.raises(ValueError, match="YCbCr"):
        open_image(pillow(colours, "TIFF", tiffinfo={530: (1, 1)}, **options))
    file = pillow(colours, "TIFF", tiffinfo={530: (1, 1)}, compression="jpeg", quality=95)
    assert np.abs(read(file).astype(int) - smooth()).max() < 12


def test_a_tiff_whose_tags_hide_what_they_say_is_refused() -> None:
    file = bytearray(tiff(noise(3)))
    (start,) = struct.unpack_from("<I", file, 4)
    (tags,) = struct.unpack_from("<H", file, start)
    for place in range(start + 2, start + 2 + 12 * tags, 12):
        if struct.unpack_from("<H", file, place)[0] == 262:
            struct.pack_into("<H", file, place + 2, 16)  # 8 bytes, which would stand elsewhere in the file
    with pytest.raises(ValueError, match="tag 262"):
        open_image(bytes(file))


def test_an_interlaced_png_is_read_as_it_is() -> None:
    image = pyvips.Image.new_from_memory(noise(3, 16).tobytes(), WIDTH, HEIGHT, 3, "ushort")
    file = image.copy(interpretation="rgb16").pngsave_buffer(interlace=True)
    assert np.array_equal(read(file), noise(3, 16))

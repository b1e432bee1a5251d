"""Writing image files: every format against an independent decoder, and what must survive beside the pixels."""

import io
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ml import image_writer
from ml.image_metadata import Metadata
from ml.image_reader import open_image
from ml.image_writer import FileFormat, ImageCanvas, Output
from tests.ml.image_corpus import HEIGHT, PROFILE, WIDTH, Pixels, from_array, noise, png_pixels, smooth

Depth = Literal[8, 16]
NOTHING = Metadata()
DPI_300 = (300 / 25.4, 300 / 25.4)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="1" dc:title="night"/></x:xmpmeta>'


def canvas_of(pixels: Pixels) -> ImageCanvas:
    height, width, channels = pixels.shape
    canvas = ImageCanvas(width, height, channels, 8 if pixels.dtype == np.uint8 else 16)
    for top in range(0, height, 10):
        canvas.append(pixels[top : top + 10])
    return canvas


def written(pixels: Pixels, file_format: FileFormat, metadata: Metadata = NOTHING, **options: Any) -> bytes:
    size = options.pop("size", None)
    with canvas_of(pixels) as canvas:
        return canvas.encode(Output(file_format, **options), metadata, size=size)


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


# Pixels


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_holds_exactly_what_was_drawn(channels: int, depth: Depth) -> None:
    pixels = noise(channels, depth)
    found = png_pixels(written(pixels, "png"))
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_tiff_holds_exactly_what_was_drawn(channels: int, depth: Depth) -> None:
    pixels = noise(channels, depth)
    with canvas_of(pixels) as canvas, open_image(canvas.encode(Output("tiff"), NOTHING)) as reader:
        assert np.array_equal(reader.read_all(), pixels)
    with tifffile.TiffFile(io.BytesIO(written(pixels, "tiff"))) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert (page.imagewidth, page.imagelength, page.samplesperpixel) == (WIDTH, HEIGHT, channels)
        assert page.bitspersample == depth
        assert page.extrasamples == ((2,) if channels in {2, 4} else ())  # not multiplied in
    if depth == 8:
        assert np.array_equal(np.asarray(opened(written(pixels, "tiff"))).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_lossless_webp_holds_exactly_what_was_drawn(channels: int) -> None:
    pixels = noise(channels)
    image = opened(written(pixels, "webp"))
    grey, alpha = pixels[..., :1].repeat(3, axis=2), pixels[..., -1:]
    expected = {1: grey, 2: np.concatenate([grey, alpha], axis=2)}.get(channels, pixels)
    assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_quality_trades_size_for_closeness(file_format: FileFormat) -> None:
    files = [written(noise(3), file_format, quality=quality) for quality in (40, 70, 95)]
    errors = [np.abs(np.asarray(opened(file)).astype(int) - noise(3)).mean() for file in files]
    assert sorted(map(len, files)) == [len(file) for file in files]
    assert sorted(errors, reverse=True) == errors


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_close_and_keeps_its_colours_at_full_size(channels: int) -> None:
    image = opened(written(smooth(channels), "jpeg"))
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    assert np.abs(np.asarray(image).reshape(HEIGHT, WIDTH, channels).astype(int) - smooth(channels)).max() < 6
    layers = image.layer  # type: ignore[attr-defined]  # Only a JPEG has them.
    assert [layer[1:3] for layer in layers] == [(1, 1)] * channels


@pytest.mark.parametrize("channels", [2, 4])
def test_a_jpeg_lays_alpha_on_white(channels: int) -> None:
    pixels = np.zeros((16, 24, channels), dtype=np.uint8)
    pixels[..., -1] = np.linspace(0, 255, 24).round()
    image = opened(written(pixels, "jpeg"))
    assert image.mode == {2: "L", 4: "RGB"}[channels]
    row = np.asarray(image).reshape(16, 24, -1)[8, :, 0].astype(float)
    assert np.abs(row - np.linspace(255, 0, 24)).max() < 6


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    expected = np.round(levels.astype(float) / 65535 * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(opened(written(levels, "webp")))[..., :1], expected)


@settings(deadline=None, max_examples=25)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    channels=st.integers(1, 4),
    depth=st.sampled_from([8, 16]),
    file_format=st.sampled_from(["png", "tiff"]),
    on_disk=st.booleans(),
)
def test_what_is_written_is_read_again(
    width: int, height: int, channels: int, depth: Depth, file_format: FileFormat, on_disk: bool
) -> None:
    pixels = noise(channels, depth, size=(height, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_writer, "HELD_BYTES", 0 if on_disk else 1 << 24)
        file = written(pixels, file_format)
    with open_image(file) as reader:
        assert np.array_equal(reader.read_all(), pixels)


def test_what_is_spooled_is_gone_when_the_canvas_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writer, "HELD_BYTES", 1000)
    open_files = psutil.Process().num_fds()
    with ImageCanvas(WIDTH, HEIGHT, 3, 8, folder=tmp_path) as canvas:
        canvas.append(noise(3))
        assert len(list(tmp_path.iterdir())) == 1
        canvas.save(tmp_path / "a.png", Output("png"), NOTHING)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert psutil.Process().num_fds() == open_files
    assert np.array_equal(png_pixels((tmp_path / "a.png").read_bytes()), noise(3))


# What stands beside the pixels


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_colour_profile_is_kept_byte_for_byte(file_format: FileFormat, channels: int, keep: bool) -> None:
    file = written(smooth(channels), file_format, Metadata(icc_profile=PROFILE), keep_metadata=keep)
    assert opened(file).info["icc_profile"] == PROFILE


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("profile", [PROFILE + b"\0" * 4, PROFILE[:-8]], ids=["padded", "cut"])
def test_a_profile_of_another_length_than_it_says_does_not_keep_a_file_from_being_written(
    file_format: FileFormat, profile: bytes
) -> None:
    with open_image(from_array(smooth(), "JPEG", icc_profile=profile)) as reader:
        file = written(reader.read_all(), file_format, reader.metadata)
    assert opened(file).info.get("icc_profile") == (PROFILE if profile.startswith(PROFILE) else None)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "tiff"])
def test_a_profile_of_colours_does_not_get_into_a_grey_file(file_format: FileFormat) -> None:
    image = opened(written(smooth(1), file_format, Metadata(icc_profile=PROFILE)))
    assert image.mode == "L"
    assert "icc_profile" not in image.info


@pytest.mark.parametrize("file_format", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("keep", [False, True])
def test_the_resolution_is_kept(file_format: FileFormat, keep: bool) -> None:
    exif = exif_of(from_array(smooth(), "JPEG", exif=some_exif(1)))
    for metadata in (Metadata(dots_per_mm=DPI_300), Metadata(dots_per_mm=DPI_300, exif=exif)):
        file = written(smooth(), file_format, metadata, keep_metadata=keep)
        assert opened(file).info["dpi"] == pytest.approx((300, 300), abs=0.1)


def some_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x829A] = (1, 50)
    return exif


def exif_of(file: bytes) -> bytes:
    with open_image(file) as reader:
        assert reader.metadata.exif is not None
        return reader.metadata.exif


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_is_kept_but_says_upright(file_format: FileFormat, orientation: int) -> None:
    source = from_array(smooth(), "JPEG", exif=some_exif(orientation))
    found = opened(written(smooth(), file_format, Metadata(exif=exif_of(source)))).getexif()
    assert found[0x010F] == "maker"
    assert found.get(0x0112, 1) == 1
    assert found.get_ifd(0x8769)[0x829A] == (1, 50)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_a_file_without_exif_comes_out_without(file_format: FileFormat) -> None:
    file = written(smooth(), file_format, Metadata(icc_profile=PROFILE, dots_per_mm=DPI_300))
    assert dict(opened(file).getexif()) == {}


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("keep", [False, True])
def test_xmp_is_kept_or_stripped(file_format: FileFormat, keep: bool) -> None:
    file = written(smooth(), file_format, Metadata(xmp=XMP), keep_metadata=keep)
    with open_image(file) as reader:
        assert reader.metadata.xmp == (XMP if keep else None)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
def test_stripped_of_metadata_nothing_personal_is_left(file_format: FileFormat) -> None:
    metadata = Metadata(
        exif=exif_of(from_array(smooth(), "JPEG", exif=some_exif(1))), xmp=XMP, iptc=b"\x1c\x02\x05\0\1x"
    )
    file = written(smooth(), file_format, metadata, keep_metadata=False)
    assert b"maker" not in file
    assert b"night" not in file


def test_xmp_does_not_turn_an_upright_picture_again() -> None:
    turned = XMP.replace(b'Orientation="1"', b'Orientation="6"')
    source = from_array(smooth(), "PNG", pnginfo=xmp_chunk(turned))
    with open_image(source) as reader:
        assert reader.metadata.xmp == XMP


def xmp_chunk(xmp: bytes) -> object:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return info


# Resizing


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("size", [(17, 11), (62, 74), (31, 37), (1, 1), (93, 5)])
def test_one_colour_stays_that_colour_at_any_size(channels: int, depth: Depth, size: tuple[int, int]) -> None:
    colour: NDArray[Any] = noise(channels, depth, size=(1, 1))
    file = written(np.broadcast_to(colour, (HEIGHT, WIDTH, channels)).copy(), "png", size=size)
    with open_image(file) as reader:
        assert (reader.width, reader.height, reader.depth) == (*size, depth)
        assert np.abs(reader.read_all().astype(int) - colour).max() <= 1


def test_shrinking_averages_light_and_not_its_code() -> None:
    """Half black and half white is half the light, which sRGB (IEC 61966-2-1) writes as 188 and not as 128."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    shrunk = png_pixels(written(board, "png", size=(16, 16)))
    assert np.abs(shrunk[4:-4, 4:-4].astype(int) - 188).max() <= 1


def test_what_is_no_light_is_averaged_as_it_is(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    with canvas_of(board) as canvas:
        canvas.save(tmp_path / "map.png", Output("png"), NOTHING, size=(16, 16), is_light=False)
    shrunk = png_pixels((tmp_path / "map.png").read_bytes())
    assert np.abs(shrunk[4:-4, 4:-4].astype(int) - 128).max() <= 1


def test_what_is_transparent_does_not_bleed_into_what_is_not() -> None:
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[..., 1] = 255  # Green that nobody sees,
    pixels[:, 16:] = 255, 0, 0, 255  # and red.
    for size in ((16, 16), (64, 64)):
        resized = png_pixels(written(pixels, "png", size=size))
        seen = resized[resized[..., 3] > 16]
        assert seen[:, 1].max() <= 8
        assert seen[:, 0].min() >= 247


# What goes wrong


@pytest.mark.parametrize(("file_format", "side"), [("webp", 16_384), ("jpeg", 65_501)])
@pytest.mark.parametrize("upright", [False, True])
def test_a_side_too_long_for_the_format_is_refused(file_format: FileFormat, side: int, upright: bool) -> None:
    pixels = np.zeros((side, 1, 1) if upright else (1, side, 1), dtype=np.uint8)
    with pytest.raises(ValueError, match="no side may be longer than"):
        written(pixels, file_format)
    assert len(written(pixels, "png")) > 0


def test_rows_that_do_not_fit_are_refused() -> None:
    with ImageCanvas(WIDTH, HEIGHT, 3, 8) as canvas:
        for wrong in (noise(3, 16), noise(4), noise(3)[:, 1:]):
            with pytest.raises(ValueError, match="do not fit"):
                canvas.append(wrong)
        with pytest.raises(ValueError, match="0 of 37 rows"):
            canvas.encode(Output(), NOTHING)
        canvas.append(noise(3))
        with pytest.raises(ValueError, match="more than"):
            canvas.append(noise(3)[:1])


def test_a_full_disk_is_an_error_of_the_system() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full on this system")
    with canvas_of(noise(3, size=(200, 300))) as canvas, pytest.raises(OSError, match="No space left"):
        canvas.save(full, Output("png"), NOTHING)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
def test_writing_can_be_stopped(tmp_path: Path, file_format: FileFormat) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with canvas_of(noise(3, size=(1500, 400))) as canvas:
        with pytest.raises(Stopped):
            canvas.save(tmp_path / "image", Output(file_format), NOTHING, check=stop)
        canvas.save(tmp_path / "image", Output(file_format), NOTHING, check=lambda: None)
    with open_image(tmp_path / "image") as reader:
        assert len(reader.read_all()) == 1500


def test_hundreds_of_files_leave_neither_memory_nor_open_files(tmp_path: Path) -> None:
    process = psutil.Process()

    def run(times: int) -> tuple[int, int]:
        for _ in range(times):
            for file_format in ("png", "jpeg", "webp", "tiff"):
                with canvas_of(smooth(4)) as canvas:
                    output = Output(file_format)
                    canvas.save(tmp_path / "image", output, Metadata(icc_profile=PROFILE), check=lambda: None)
        return process.memory_info().rss, process.num_fds()

    _, files_before = run(5)
    memory_before, _ = run(20)
    memory_after, files_after = run(30)
    assert files_after == files_before
    assert memory_after - memory_before < 6 << 20


def test_files_are_written_from_several_threads() -> None:
    found: list[NDArray[np.uint16]] = []

    def work(seed: int) -> None:
        found.append(png_pixels(written(noise(3, 16, seed), "png")) - noise(3, 16, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert not np.any(found)

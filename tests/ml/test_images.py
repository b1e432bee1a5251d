"""Files in, pixels out."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from ml.images import decode, digest_of, from_uint8, jpeg, load_folder, to_uint8

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (37, 31, 3), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def file_of(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def test_pixels_are_channels_first_from_the_top_left() -> None:
    picture = decode(file_of(Image.fromarray(COLOURS)))
    assert picture.pixels.shape == (3, 37, 31)
    assert picture.pixels.dtype == torch.float32
    assert picture.pixels[:, 5, 7].mul(255).round().tolist() == COLOURS[5, 7].tolist()
    assert picture.alpha is None
    assert not picture.grey


def test_a_palette_is_resolved_into_colours_and_its_transparency_into_alpha() -> None:
    palette = Image.fromarray(COLOURS).quantize(16)
    assert palette.mode == "P"
    resolved = decode(file_of(palette)).pixels.permute(1, 2, 0).mul(255).round().numpy()
    assert np.array_equal(resolved, np.asarray(palette.convert("RGB")))
    picture = decode(file_of(palette, transparency=3))
    assert picture.alpha is not None
    assert torch.equal(picture.alpha[0] == 0, torch.from_numpy(np.asarray(palette) == 3))


def test_a_bilevel_image_is_grey() -> None:
    picture = decode(file_of(Image.fromarray(COLOURS[..., 0] > 127)))
    assert picture.grey
    assert set(picture.pixels.unique().tolist()) == {0, 1}


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    values = RNG.integers(0, 65536, (37, 31), dtype=np.uint16)
    picture = decode(file_of(Image.fromarray(values)))
    assert picture.grey
    assert torch.allclose(picture.pixels[1], torch.from_numpy(values / 65535).float(), atol=1e-6)


def test_floating_point_pixels_are_refused_for_nothing_says_what_is_white() -> None:
    with pytest.raises(ValueError, match="type float"):
        decode(file_of(Image.fromarray(RNG.random((37, 31), dtype=np.float32)), "TIFF"))


def test_a_cmyk_jpeg_becomes_rgb_without_its_cmyk_profile() -> None:
    flat = Image.new("CMYK", (31, 37), (0, 255, 255, 0))  # magenta and yellow, which print as red
    picture = decode(file_of(flat, "JPEG", quality=95, icc_profile=b"a profile of inks"))
    red, green, blue = (picture.pixels.mean(dim=(1, 2)) * 255).tolist()
    assert red > 200
    assert max(green, blue) < 80
    assert picture.icc_profile is None or picture.icc_profile[16:20] == b"RGB "


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_images_are_turned_upright(orientation: int, file_format: str) -> None:
    """The expected turn for each EXIF value is spelled out with NumPy (EXIF 2.32, tag 0x0112)."""
    upright = np.zeros((32, 24, 3), dtype=np.uint8)
    upright[:16, :12] = 255, 0, 0
    upright[:16, 12:] = 0, 255, 0
    upright[16:, :12] = 0, 0, 255
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}
    picture = decode(file_of(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options))
    expected = torch.from_numpy(upright).permute(2, 0, 1) / 255
    assert picture.pixels.shape == expected.shape
    assert float((picture.pixels - expected).abs().mean()) < 0.02


def test_the_colour_profile_is_told() -> None:
    assert decode(file_of(Image.fromarray(COLOURS), icc_profile=PROFILE)).icc_profile == PROFILE


FILES = {
    "png": file_of(Image.fromarray(COLOURS)),
    "sixteen-bit": file_of(Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)),
    "jpeg": file_of(Image.fromarray(COLOURS), "JPEG"),
    "progressive": file_of(Image.fromarray(COLOURS), "JPEG", progressive=True),
    "webp": file_of(Image.fromarray(COLOURS), "WEBP"),
    "bmp": file_of(Image.fromarray(COLOURS), "BMP"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_truncated_file_is_refused(name: str, percent: int) -> None:
    whole = FILES[name]
    with pytest.raises(ValueError, match="not a readable image"):
        decode(whole[: len(whole) * percent // 100])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some of what it repairs.
@pytest.mark.parametrize("name", FILES)
def test_a_corrupt_file_is_refused_or_read_but_fails_in_no_other_way(name: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        file = bytearray(FILES[name])
        file[rng.integers(len(file))] = rng.integers(256)
        with contextlib.suppress(ValueError):
            assert torch.isfinite(decode(bytes(file)).pixels).all()


@pytest.mark.parametrize("file", [b"", b"no image at all", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable image"):
        decode(file)


def test_an_image_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="31×37 pixels; at most 100"):
        decode(FILES["png"], max_pixels=100)


def test_eight_bits_survive_the_way_through_floats() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)


def test_rounding_is_to_the_nearest_level_within_the_range() -> None:
    values = torch.tensor([-0.3, 0.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.0, 7.0]).reshape(1, 1, 7)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 1, 255, 255, 255]


def test_jpeg_compression_loses_more_at_lower_quality(odd_image: Tensor) -> None:
    loss = [float((jpeg(odd_image, quality) - odd_image).square().mean()) for quality in (95, 60, 10)]
    assert loss == sorted(loss)
    assert loss[0] > 0


def test_a_folder_is_read_by_name_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name, value in (("b.PNG", 20), ("a.jpg", 10)):
        Image.new("RGB", (31, 37), (value,) * 3).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    first, second = load_folder(tmp_path)
    assert (int(first[0, 0, 0]), int(second[0, 0, 0])) == (10, 20)
    assert first.dtype == torch.uint8


def test_of_a_large_folder_as_many_images_as_asked_for_are_drawn_and_kept_in_order(tmp_path: Path) -> None:
    for level in range(9):
        Image.new("RGB", (5 + level, 7), (level,) * 3).save(tmp_path / f"{level}.png")

    def drawn(most: int, seed: int) -> list[int]:
        return [int(image[0, 0, 0]) for image in load_folder(tmp_path, most, torch.Generator().manual_seed(seed))]

    draws = [drawn(4, seed) for seed in range(20)]
    assert all(len(set(levels)) == 4 and levels == sorted(levels) for levels in draws)
    assert set().union(*draws) == set(range(9))  # No image is left out for its name.
    assert drawn(4, 0) == draws[0]
    assert drawn(9, 0) == drawn(100, 0) == list(range(9))


def test_what_cannot_be_used_is_told_and_another_image_drawn_instead(tmp_path: Path) -> None:
    for level in range(9):
        Image.new("RGB", (60, 50), (level,) * 3).save(tmp_path / f"{level}.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "small.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "thumbs.png").mkdir()
    told: set[str] = set()

    def drawn(most: int | None, seed: int) -> list[int]:
        said: list[str] = []
        generator = torch.Generator().manual_seed(seed)
        images = load_folder(tmp_path, most, generator, leave_out=said.append, least_side=50)
        told.update(Path(line.split(":")[0]).name for line in said)
        return [int(image[0, 0, 0]) for image in images]

    assert drawn(None, 0) == list(range(9))
    assert told == {"small.png", "torn.png", "gone.png"}
    assert all(len(set(drawn(6, seed))) == 6 for seed in range(20))
    for unreadable in ("torn.png", "gone.png"):
        (tmp_path / "only").mkdir(exist_ok=True)
        (tmp_path / unreadable).rename(tmp_path / "only" / unreadable)
        with pytest.raises(ValueError, match=unreadable):
            load_folder(tmp_path / "only")
        (tmp_path / "only" / unreadable).unlink()


def test_a_folder_of_small_images_alone_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="of 50 pixels or more"):
        load_folder(tmp_path, least_side=50)


def test_a_large_folder_without_usable_images_is_given_up_soon(tmp_path: Path) -> None:
    for level in range(30):
        Image.new("RGB", (60, 40), (level,) * 3).save(tmp_path / f"{level}.png")
    said: list[str] = []
    with pytest.raises(ValueError, match="no usable image"):
        load_folder(tmp_path, 3, torch.Generator().manual_seed(0), leave_out=said.append, least_side=50)
    assert len(said) == 12


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        load_folder(tmp_path)


def test_a_digest_tells_values_sizes_and_order_but_not_how_they_lie_in_memory() -> None:
    image = torch.from_numpy(COLOURS.copy()).permute(2, 0, 1)  # Not contiguous.
    other = image.clone()
    other[1, 2, 3] ^= 1
    turned = image.contiguous().view(3, 31, 37)
    lists = [[], [image], [other], [turned], [image, other], [other, image], [image, image]]
    assert len({digest_of(images) for images in lists}) == len(lists)
    assert digest_of([image]) == digest_of([image.contiguous()])

"""Images on their way to the service and back: no bit is lost, and what cannot be sent is refused in words."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from drtl_client.images import Restored, as_part, png

SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([3, 4])),
)


@settings(deadline=None)
@given(arrays.arrays(np.uint8, SHAPES))
def test_a_png_of_eight_bits_reads_as_the_array_it_was_made_of(array: NDArray[np.uint8]) -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(array)))), array)


@settings(deadline=None)
@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_a_grey_png_of_sixteen_bits_reads_as_the_array_it_was_made_of(array: NDArray[np.uint16]) -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(array)))), array)


def test_an_array_that_is_a_view_is_sent_as_it_looks() -> None:
    array = np.random.default_rng(0).integers(0, 256, (31, 37, 3), np.uint8)
    for view in (array[::2, ::-1], array.transpose(1, 0, 2), array[..., 0]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(view)))), view)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8 or uint16"),
        (np.zeros((8, 8, 3), np.int64), "uint8 or uint16"),
        (np.zeros((3, 8, 8), np.uint8), "shape"),
        (np.zeros(8, np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_the_reason(array: NDArray[np.generic], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        as_part("image", array)


def test_a_pillow_image_that_png_cannot_hold_is_refused_in_words() -> None:
    said = r"^the Pillow image cannot be sent as PNG: cannot write mode CMYK as PNG; send its file, or convert it$"
    with pytest.raises(ValueError, match=said):
        as_part("image", Image.new("CMYK", (8, 8)))


def test_what_is_no_image_at_all_is_refused() -> None:
    with pytest.raises(TypeError, match="not list"):
        as_part("image", [1, 2])  # type: ignore[arg-type]  # No image, on purpose.


def restored(image: Image.Image | bytes) -> Restored:
    content = image
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()
    assert isinstance(content, bytes)
    headers = {
        "Content-Type": "image/png",
        "X-DRTL-Model": "x@1",
        "X-DRTL-Tile": "256",
        "Server-Timing": "restore;dur=312.5",
    }
    return Restored.of(httpx.Response(200, content=content, headers=headers))


def test_a_result_says_in_types_what_its_headers_say(tmp_path: Path) -> None:
    image = Image.effect_noise((37, 31), 60).convert("RGB")
    result = restored(image)
    assert (result.model, result.tile, result.seconds, result.precision) == ("x@1", 256, 0.3125, None)
    assert np.array_equal(result.array(), np.asarray(image))
    assert result.save(tmp_path / "a.png").read_bytes() == result.content


def test_sixteen_bits_of_colour_are_saved_but_not_cut_to_an_array(tmp_path: Path) -> None:
    content = png(np.full((31, 37, 3), 300, np.uint16))
    with pytest.raises(ValueError, match="16 bits"):
        restored(content).array()
    assert restored(content).save(tmp_path / "a.png").read_bytes() == content

"""Exposure, sharpness, texture, clipping and duplicates: each question by itself, on photographs."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.doctor.colour import compare_colour
from app.doctor.content import clipping, texture
from app.doctor.duplicates import alike
from app.doctor.fingerprint import fingerprint
from app.doctor.measurements import Similarity
from app.doctor.pixels import Pixels, grey
from app.doctor.sharpness import compare_sharpness
from tests.app.doctor.perturb import blurred, moved, noisy, photograph, rounded


def jpeg(image: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32)


@settings(max_examples=10, deadline=None)
@given(gains=st.tuples(*[st.floats(0.8, 1.2)] * 3), offset=st.floats(-8, 8))
def test_gain_and_offset_of_each_channel_are_found_under_blur_and_noise(
    gains: tuple[float, float, float], offset: float
) -> None:
    clean = moved(photograph()) * 0.7 + 30
    distorted = noisy(blurred(rounded(clean * np.array(gains) + offset), 1.5), 10)
    found = compare_colour(clean, distorted)
    assert found.gain == pytest.approx(gains, abs=0.03)
    assert found.offset == pytest.approx([offset] * 3, abs=4)


def test_equal_exposure_is_no_difference_and_a_constant_image_none_either() -> None:
    clean = moved(photograph())
    assert compare_colour(clean, noisy(clean, 15)).difference < 2
    flat = np.full((64, 67, 3), 120, np.float32)
    assert compare_colour(flat, flat).gain == pytest.approx((1, 1, 1))
    assert compare_colour(flat, flat + 10).difference == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee"])
@pytest.mark.parametrize("spoil", ["blur", "noise", "both"])
def test_the_cleaner_side_is_told_and_a_swap_is_found(name: str, spoil: str) -> None:
    clean = moved(photograph(name))
    distorted = {
        "blur": lambda: blurred(clean, 1.5),
        "noise": lambda: noisy(clean, 25),
        "both": lambda: noisy(blurred(clean, 2), 10),
    }[spoil]()
    assert compare_sharpness(grey(clean), grey(distorted)).order == "right"
    assert compare_sharpness(grey(distorted), grey(clean)).order == "swapped"


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee"])
@pytest.mark.parametrize("quality", [20, 50, 80])
def test_compression_is_not_taken_for_the_cleaner_side(name: str, quality: int) -> None:
    clean = moved(photograph(name))
    assert compare_sharpness(grey(clean), grey(jpeg(clean, quality))).order != "swapped"


def test_equal_images_have_no_order() -> None:
    clean = grey(moved(photograph()))
    assert compare_sharpness(clean, clean).order == "equal"


def test_texture_is_the_share_that_shows_something() -> None:
    half = np.full((160, 171), 128, np.float32)
    half[:, 80:] += np.random.default_rng(0).normal(0, 30, (160, 91)).astype(np.float32)
    assert 0.4 < texture(half) < 0.75
    assert texture(np.full((64, 64), 30, np.float32)) == 0
    assert texture(np.full((5, 9), 30, np.float32)) == 0
    assert texture(grey(moved(photograph("coffee")))) > 0.3


def test_clipping_counts_pixels_at_black_or_white() -> None:
    clean = np.full((40, 50, 3), 100, np.float32)
    distorted = clean.copy()
    distorted[:10] = 255
    distorted[10:15, :, 1] = 0
    found = clipping(clean, distorted)
    assert found.clean == 0
    assert found.distorted == pytest.approx(15 / 40)


def test_a_second_take_of_a_scene_is_a_duplicate_and_another_scene_is_not() -> None:
    scenes = [photograph("astronaut"), photograph("coffee"), photograph("camera"), photograph("chelsea", 230, 330)]
    takes = [take for scene in scenes for take in (moved(scene), noisy(moved(scene, Similarity(5, -4, 1.0), 0.85), 12))]
    assert alike([fingerprint(grey(take)) for take in takes]) == [[1], [0], [3], [2], [5], [4], [7], [6]]


@pytest.mark.parametrize("shape", [(7, 9), (33, 1), (64, 64)])
def test_images_without_structure_are_nobodys_duplicates(shape: tuple[int, int]) -> None:
    flat = fingerprint(np.full(shape, 90, np.float32))
    assert alike([flat, flat]) == [[], []]
    assert alike([]) == []

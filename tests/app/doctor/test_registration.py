"""Shift, rotation and scale are found, whatever else differs between the two images."""

from math import hypot

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.doctor.measurements import Similarity
from app.doctor.pixels import Pixels, grey
from app.doctor.registration import register
from tests.app.doctor.perturb import blurred, moved, noisy, photograph


def far_off(clean: Pixels, distorted: Pixels, expected: Similarity) -> float:
    found = register(grey(clean), grey(distorted)).transform
    return hypot(found.x - expected.x, found.y - expected.y)


@settings(max_examples=12, deadline=None)
@given(
    x=st.floats(-8, 8),
    y=st.floats(-8, 8),
    rotation=st.floats(-2, 2),
    scale=st.floats(0.99, 1.01),
    gain=st.floats(0.8, 1.2),
)
def test_a_known_transform_is_found_within_a_tenth_of_a_pixel(
    x: float, y: float, rotation: float, scale: float, gain: float
) -> None:
    scene, known = photograph(), Similarity(x, y, rotation, scale)
    clean, distorted = moved(scene), moved(scene, known, gain)
    found = register(grey(clean), grey(distorted)).transform
    assert hypot(found.x - x, found.y - y) < 0.1
    assert found.rotation_deg == pytest.approx(rotation, abs=0.05)
    assert found.scale == pytest.approx(scale, abs=5e-4)


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee"])
@pytest.mark.parametrize(("blur", "noise"), [(0.0, 0.0), (2.0, 0.0), (0.0, 25.0), (1.5, 15.0)])
def test_neither_blur_nor_noise_draws_the_shift_away(name: str, blur: float, noise: float) -> None:
    scene, known = photograph(name), Similarity(2.4, -1.7)
    distorted = noisy(blurred(moved(scene, known), blur), noise)
    assert far_off(moved(scene), distorted, known) < 0.1
    assert far_off(distorted, moved(scene), Similarity(-known.x, -known.y)) < 0.1


def test_exposure_of_each_channel_does_not_matter() -> None:
    scene, known = photograph("coffee"), Similarity(-3.3, 0.6)
    assert far_off(moved(scene), moved(scene, known, [0.8, 1.0, 1.2]), known) < 0.1


@pytest.mark.parametrize(("x", "y"), [(40, 0), (-25, 33)])
def test_shifts_by_a_tenth_of_the_image_are_found(x: int, y: int) -> None:
    scene = photograph(height=401, width=377)
    clean, distorted = scene[40:-40, 40:-40], scene[40 - y : -40 - y or None, 40 - x : -40 - x or None]
    distorted = distorted[: clean.shape[0], : clean.shape[1]]
    assert far_off(clean, distorted, Similarity(x, y)) < 0.1


def test_the_same_scene_correlates_and_another_does_not() -> None:
    one, other = moved(photograph("astronaut")), moved(photograph("coffee"))
    assert register(grey(one), grey(noisy(blurred(one, 2), 25))).correlation > 0.9
    assert register(grey(one), grey(other)).correlation < 0.7
    assert register(grey(one), grey(255 - one)).correlation < 0.7


@pytest.mark.parametrize("shape", [(16, 16), (17, 64), (48, 400), (1, 1)])
def test_tiny_and_constant_images_do_no_harm(shape: tuple[int, int]) -> None:
    flat = np.full(shape, 90, np.float32)
    assert register(flat, flat).transform == Similarity()
    if min(shape) == 1:
        return
    grain = np.random.default_rng(0).normal(90, 20, shape).astype(np.float32)
    found = register(grain, grain)
    assert hypot(found.transform.x, found.transform.y) < 0.1
    assert np.isfinite(found.correlation)

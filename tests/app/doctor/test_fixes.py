"""What is mended is mended, and the distorted pixels stay as they were."""

from math import hypot

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.doctor import fixes
from app.doctor.colour import compare_colour
from app.doctor.examination import examine
from app.doctor.measurements import Similarity
from app.doctor.verdict import Finding, findings, verdict_on
from tests.app.doctor.perturb import blurred, moved, noisy, photograph


def bytes_of(image: np.ndarray) -> fixes.Image:
    return image.astype(np.uint8)


def centre_of(image: np.ndarray) -> tuple[float, float]:
    return (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2


@settings(max_examples=8, deadline=None)
@given(x=st.floats(-8, 8), y=st.floats(-8, 8), rotation=st.floats(-2, 2))
@example(x=0.0, y=0.0, rotation=0.0625)  # 0.22 pixels at the corners
@example(x=3.098, y=0.0, rotation=0.0)
@example(x=2.0, y=-3.03, rotation=0.009)  # Small enough to be left, and no interpolation
def test_alignment_leaves_no_misalignment_and_the_distorted_pixels_untouched(
    x: float, y: float, rotation: float
) -> None:
    scene = photograph()
    clean, distorted = moved(scene), noisy(moved(scene, Similarity(x, y, rotation)), 8)
    found = examine(clean, distorted).registration.transform
    one, other = fixes.align(bytes_of(clean), bytes_of(distorted), found, centre_of(clean), 1)
    assert one.shape == other.shape
    after = examine(one.astype(np.float32), other.astype(np.float32))
    assert hypot(after.registration.transform.x, after.registration.transform.y) < 0.1
    assert abs(after.registration.transform.rotation_deg) < 0.05
    assert after.psnr_db is not None
    assert after.psnr_db > 28  # The noise alone leaves 30 dB.
    views = np.lib.stride_tricks.sliding_window_view(bytes_of(distorted), other.shape)
    assert any(np.array_equal(view, other) for row in views for view in row[:, 0])


def test_a_shift_by_whole_pixels_is_undone_without_interpolation() -> None:
    scene = bytes_of(photograph())
    clean, distorted = scene[10:110, 12:130], scene[7:107, 17:135]
    one, other = fixes.align(clean, distorted, Similarity(-5.02, 3.03), centre_of(clean), 1)
    assert one.shape == (97, 113, 3)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_with_a_scale_the_clean_side_stays_a_multiple(scale: int) -> None:
    clean = bytes_of(photograph(height=240, width=180))[: 240 // scale * scale, : 180 // scale * scale]
    distorted = clean[::scale, ::scale]
    move = Similarity(2.6, -5.3, 0.4)
    for one, other in (
        fixes.align(clean, distorted, move, centre_of(clean), scale),
        fixes.crop(clean, distorted, move, scale),
    ):
        assert one.shape[:2] == (other.shape[0] * scale, other.shape[1] * scale)
        assert other.shape < distorted.shape


def test_matched_colours_are_those_of_the_distorted_image() -> None:
    scene = photograph()
    clean, distorted = moved(scene) * 0.8, noisy(moved(scene, gain=[0.7, 0.8, 0.9]), 8)
    found = compare_colour(clean, distorted)
    assert found.difference > 4
    matched = fixes.match_colour(bytes_of(clean), found).astype(np.float32)
    assert compare_colour(matched, distorted).difference < 1


def test_images_that_share_nothing_cannot_be_aligned() -> None:
    image = bytes_of(photograph())[:70, :80]
    for move in (Similarity(90, 0), Similarity(0, -75.5)):
        with pytest.raises(ValueError, match="overlap"):
            fixes.align(image, image, move, centre_of(image), 1)
        with pytest.raises(ValueError, match="overlap"):
            fixes.crop(image, image, move, 1)


def test_only_allowed_fixes_that_a_finding_asks_for_are_applied() -> None:
    shifted, colour = Finding("shifted", "warning", "", "align"), Finding("colour", "warning", "", "match_colour")
    assert fixes.wanted_by([], ["align", "crop", "match_colour", "swap"]) == []
    assert fixes.wanted_by([colour, shifted], ["match_colour", "align", "crop"]) == ["align", "match_colour"]
    assert fixes.wanted_by([shifted], ["crop"]) == ["crop"]
    assert fixes.wanted_by([shifted], ["match_colour"]) == []


def test_each_fault_is_found_and_named() -> None:
    scene, other = photograph(), moved(photograph("coffee"))
    clean = moved(scene)
    flat = np.full((90, 80, 3), 50, np.float32)
    expected = {
        "good": (clean, noisy(blurred(clean, 1), 8), [], "good"),
        "shifted": (clean, noisy(moved(scene, Similarity(3, -2)), 8), ["shifted"], "fixable"),
        "rotated": (clean, noisy(moved(scene, Similarity(0, 0, 1.5)), 8), ["rotated"], "fixable"),
        "scaled": (clean, noisy(moved(scene, Similarity(scale=1.02)), 8), ["scaled"], "fixable"),
        "colour": (clean, noisy(moved(scene, gain=0.8), 8), ["colour"], "fixable"),
        "swapped": (blurred(clean, 2), clean, ["swapped"], "reject"),
        "unrelated": (clean, other, ["unrelated"], "reject"),
        "identical": (clean, clean, ["identical"], "reject"),
        "blank": (flat, noisy(flat, 5), ["blank"], "reject"),
    }
    for name, (one, two, codes, verdict) in expected.items():
        found = findings(examine(one, two))
        assert [finding.code for finding in found if finding.severity != "note"] == codes, name
        assert verdict_on(found) == verdict, name
        assert all(finding.sentence.endswith((".", "?")) for finding in found)

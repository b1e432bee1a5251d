"""Turned and grown pairs: colour and sharpness are judged where the two images show the same."""

import numpy as np
import pytest

from app.doctor.examination import examine
from app.doctor.measurements import Similarity
from app.doctor.pixels import grey
from app.doctor.verdict import findings, verdict_on
from tests.app.doctor.perturb import blurred, moved, noisy, photograph, rounded

every_photograph = pytest.mark.parametrize("name", ["brick", "grass", "coins", "coffee"])
every_transform = pytest.mark.parametrize(
    "transform",
    [
        Similarity(rotation_deg=3),
        Similarity(scale=1.05),
        Similarity(scale=0.95),
        Similarity(x=9.3, y=-6.4, rotation_deg=-2, scale=1.01),
    ],
    ids=["turned", "larger", "smaller", "all"],
)


@every_photograph
@every_transform
@pytest.mark.parametrize("spoil", ["noise", "blur"])
def test_a_turned_or_grown_pair_is_neither_swapped_nor_of_other_colours(
    name: str, transform: Similarity, spoil: str
) -> None:
    scene = photograph(name)
    distorted = noisy(moved(scene, transform), 6) if spoil == "noise" else blurred(moved(scene, transform), 1.2)
    found = examine(moved(scene), distorted)
    assert found.colour.gain == pytest.approx((1, 1, 1), abs=0.04)
    assert {finding.code for finding in findings(found)} <= {"rotated", "scaled", "shifted", "clipped"}


@every_transform
@pytest.mark.parametrize(
    ("name", "spoil"), [("brick", "noise"), ("brick", "blur"), ("coffee", "noise"), ("grass", "blur")]
)
def test_a_turned_or_grown_pair_whose_sides_are_swapped_is_found(name: str, transform: Similarity, spoil: str) -> None:
    scene = photograph(name)
    worse = noisy(moved(scene), 25) if spoil == "noise" else blurred(moved(scene), 2)
    found = findings(examine(worse, moved(scene, transform)))
    assert "swapped" in {finding.code for finding in found}
    assert "colour" not in {finding.code for finding in found}


def test_a_difference_of_exposure_is_measured_in_a_turned_pair_too() -> None:
    scene = photograph("brick")
    found = examine(moved(scene), noisy(moved(scene, Similarity(x=4.6, rotation_deg=3), gain=[0.8, 0.9, 1.1]), 6))
    assert found.colour.gain == pytest.approx((0.8, 0.9, 1.1), abs=0.03)
    assert found.sharpness.order != "swapped"


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_a_grey_clean_image_of_a_coloured_one_is_rejected_and_the_reverse_warned_about(name: str) -> None:
    coloured = moved(photograph(name))
    without = np.repeat(grey(coloured)[..., None], 3, axis=2)
    found = findings(examine(without, blurred(coloured, 1.5)))
    assert [(finding.code, finding.severity) for finding in found if "grey" in finding.code] == [
        ("grey_clean", "error")
    ]
    assert verdict_on(found) == "reject"
    reverse = findings(examine(coloured, blurred(without, 1.5)))
    assert [(finding.code, finding.severity) for finding in reverse if "grey" in finding.code] == [
        ("grey_distorted", "warning")
    ]
    assert "match_colour" not in {finding.fix for finding in [*found, *reverse]}


def test_a_tint_or_coloured_noise_on_a_grey_photograph_can_be_learnt() -> None:
    clean = moved(photograph("camera"))
    for distorted in (noisy(clean, 25), rounded(noisy(clean, 8) * np.array([1.0, 0.9, 0.7]))):
        assert not any("grey" in finding.code for finding in findings(examine(clean, distorted)))

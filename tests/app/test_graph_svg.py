"""The drawing of a relation graph keeps its labels apart, however many distortions there are."""

import math
from itertools import combinations
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api import graph_svg
from app.api.graph_svg import GAIN_LEFT, GRAPH_BOTTOM, GRAPH_WIDTH, HEADER, MARGIN, draw, spread_out

NAMES = (
    "bicubic", "aniso_bicubic", "noise", "blur", "mild", "moderate", "severe", "jpeg", "poisson", "bayer",
    "motion_blur", "defocus", "chroma_subsampling", "sharpen_halo", "downscale_antialias", "quantize", "speckle",
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"
WIDTH_OF_LETTER = {"strong": 8.2, "small": 6.0}  # at most, of the system's fonts at these sizes
HEIGHT_OF_LETTER = {"strong": 12, "small": 10}


def graph_of(gammas: list[float], selected: int | None = None) -> dict[str, Any]:
    names = NAMES[: len(gammas)]
    gamma = dict(zip(names, gammas, strict=True))
    nodes: list[dict[str, Any]] = [
        {
            "id": name,
            "kind": "auxiliary",
            "gamma": gamma[name],
            "gamma_std": 0.05,
            "psnr_db": 27.3,
            "selected": selected is None or place < selected,
        }
        for place, name in enumerate(names)
    ]
    pairs = [*combinations(names, 2), *((name, "target") for name in names)]
    return {
        "graph": {
            "target": "target",
            "verdict": "related",
            "sentence": "Mostly like blur.",
            "ranking": sorted(names, key=lambda name: -gamma[name]),
        },
        "nodes": [*nodes, {"id": "target", "kind": "target"}],
        "links": [{"source": one, "target": other, "cosine": 0.6} for one, other in pairs],
    }


def labels(svg: ET.Element) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Text in the panel of the graph with its box (left, top, right, bottom), of upright text."""
    found = []
    for text in svg.iter(f"{SVG}text"):
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        size = "strong" if "strong" in (text.get("class") or "") else "small"
        if not HEADER + 40 < y < HEADER + 640 or x > GRAPH_WIDTH - MARGIN / 2 or text.get("class") == "in-target":
            continue
        width = WIDTH_OF_LETTER[size] * len(text.text or "")
        left = {"middle": x - width / 2, "end": x - width}.get(text.get("text-anchor", "start"), x)
        found.append((text.text or "", (left, y - HEIGHT_OF_LETTER[size], left + width, y)))
    return found


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@given(gammas=st.lists(st.floats(-0.2, 1), min_size=11, max_size=17))
@settings(max_examples=30, deadline=None)
def test_no_label_covers_another_and_all_stay_in_the_panel(gammas: list[float]) -> None:
    svg = ET.fromstring(draw(graph_of(gammas), "scanner"))  # noqa: S314 - our own
    named = [each for each in labels(svg) if each[0].rstrip("_") and not each[0].replace(".", "").isdigit()]
    assert len(named) >= 2 * len(gammas)
    for (_, box), (_, other) in combinations(named, 2):
        assert not overlap(box, other)
    for _, (left, _, right, _) in named:
        assert left >= MARGIN / 2
        assert right <= GRAPH_WIDTH - MARGIN / 2 + 4


@pytest.mark.parametrize("count", [1, 7, 10, 11, 17])
def test_every_distortion_has_a_node_a_bar_and_a_row_of_cosines(count: int) -> None:
    svg = ET.fromstring(draw(graph_of([0.9 - 0.04 * place for place in range(count)]), "scanner"))  # noqa: S314 - our own
    assert sum((circle.get("class") or "").startswith("node") for circle in svg.iter(f"{SVG}circle")) == count
    words = [text.text for text in svg.iter(f"{SVG}text")]
    for name in NAMES[:count]:
        assert words.count(name) >= 3  # a bar, a row and a column; beside its node the name may be in two lines


def test_distortions_that_are_not_learnt_from_are_hollow_and_the_drawing_says_so() -> None:
    svg = ET.fromstring(draw(graph_of([0.9, 0.8, 0.7], selected=2), "scanner"))  # noqa: S314 - our own
    circles = [circle.get("class") for circle in svg.iter(f"{SVG}circle")]
    assert circles.count("node left-out") == 1
    assert circles.count("node") == 2
    assert any("Hollow" in (text.text or "") for text in svg.iter(f"{SVG}text"))


@pytest.mark.parametrize("selected", [None, 0])
def test_where_all_or_none_are_learnt_from_none_is_hollow(selected: int | None) -> None:
    svg = ET.fromstring(draw(graph_of([0.9, 0.8, 0.7], selected), "scanner"))  # noqa: S314 - our own
    assert [circle.get("class") for circle in svg.iter(f"{SVG}circle")].count("node") == 3
    assert not any("Hollow" in (text.text or "") for text in svg.iter(f"{SVG}text"))


@pytest.mark.parametrize("count", [3, 7, 17])
def test_what_learning_promises_stands_below_the_graph_best_first(count: int) -> None:
    graph = graph_of([0.9 - 0.04 * place for place in range(count)], selected=3)
    for node, gain, weight in zip(graph["nodes"], (-0.05, 0.71, 0.2), (0.0, 0.9, 0.1), strict=False):
        node |= {"gain_db": gain, "weight": weight}
    svg = ET.fromstring(draw(graph, "scanner"))  # noqa: S314 - our own
    told = [text for text in svg.iter(f"{SVG}text") if float(text.get("y", 0)) > GRAPH_BOTTOM]
    told = [text for text in told if float(text.get("x", 0)) < GRAPH_WIDTH - MARGIN / 2]
    words = [text.text for text in told]
    assert words[0] == "What learning it promises"
    rows = [words[place : place + 3] for place in range(2, len(words), 3)]
    assert rows == [["aniso_bicubic", "+0.71 dB", "90%"], ["noise", "+0.20 dB", "10%"], ["bicubic", "−0.05 dB", "0%"]]
    assert max(float(text.get("y", 0)) for text in told) < float(svg.get("height", 0)) - MARGIN / 2
    bars = [bar for bar in svg.iter(f"{SVG}rect") if bar.get("class") == "accent" and bar.get("x") == f"{GAIN_LEFT:g}"]
    widths = [float(bar.get("width", 0)) for bar in bars]
    assert widths[0] > widths[1] > widths[2] == 0
    assert widths[1] / widths[0] == pytest.approx(0.2 / 0.71, abs=0.01)


def test_where_nothing_was_assessed_the_drawing_promises_nothing() -> None:
    svg = ET.fromstring(draw(graph_of([0.9, 0.8, 0.7]), "scanner"))  # noqa: S314 - our own
    assert not any("promises" in (text.text or "") for text in svg.iter(f"{SVG}text"))


@given(middles=st.lists(st.floats(0, 500), min_size=1, max_size=14).map(sorted))
@settings(max_examples=100, deadline=None)
def test_labels_that_are_spread_out_keep_their_order_and_their_distance(middles: list[float]) -> None:
    heights = [30.0 + 14 * (place % 2) for place in range(len(middles))]
    placed = spread_out(middles, heights)
    for place in range(1, len(placed)):
        assert placed[place] - placed[place - 1] >= (heights[place] + heights[place - 1]) / 2 - 1e-6


def test_labels_with_room_enough_stay_where_they_are() -> None:
    assert spread_out([0, 50, 100], [30, 30, 30]) == [0, 50, 100]
    assert math.isclose(graph_svg.Rings(100, 200).at(0.5), 150)

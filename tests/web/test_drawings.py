"""What the page draws of a job: no label lies on another, no two levels of an axis read alike, no phase is made up."""

import itertools
import math
from typing import Any

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from app.core.owners import OPEN, look_as
from app.core.tables import Job, JobEvent
from tests.web.conftest import Waiting

NARROW, WIDE = ViewportSize(width=360, height=800), ViewportSize(width=1280, height=860)
PAPERS = ["blur", "noise", "jpeg", "mild", "moderate", "severe", "bicubic"]
ALL = [
    *PAPERS,
    *["poisson", "speckle", "quantize", "sharpen_halo", "bayer", "aniso_bicubic", "chroma_subsampling", "defocus"],
    *["downscale_antialias", "motion_blur"],
]
# Boxes as they are drawn, of which each has to keep clear of those behind it that are meant by `clear_of`.
BOXES = """([selector]) => [...document.querySelectorAll(selector)].map((element) => {
    const { left, right, top, bottom } = element.getBoundingClientRect();
    return { text: element.textContent, left, right, top, bottom };
})"""

Box = dict[str, Any]


def graph_of(
    names: list[str], gammas: list[float], weights: list[float], *, spread: float = 1.0, gain_db: float | None = None
) -> dict[str, Any]:
    """A relation graph whose distortions lie on a spiral of that size around the target."""
    ranking = [name for _, name in sorted(zip(gammas, names, strict=True), key=lambda each: -each[0])]
    nodes: list[dict[str, Any]] = [
        {
            "id": name,
            "kind": "auxiliary",
            "x": spread * place / len(names) * math.cos(2.4 * place),
            "y": spread * place / len(names) * math.sin(2.4 * place),
            "gamma": gamma,
            "gamma_std": 0.02,
            "gain_db": gain_db,
            "psnr_db": 20.0 + place,
            "weight": weight,
            "selected": weight > 0,
            "samples": [[0.9, -0.6], [-0.8, 0.7]],
        }
        for place, (name, gamma, weight) in enumerate(zip(names, gammas, weights, strict=True))
    ]
    target = {"id": "target", "kind": "target", "x": 0.0, "y": 0.0, "psnr_db": 25.0, "samples": [[0.05, 0.05]]}
    between = [{"source": one, "target": other, "cosine": 0.8} for one, other in itertools.combinations(names, 2)]
    to_target = [
        {"source": name, "target": "target", "cosine": gamma, "weight": weight}
        for name, gamma, weight in zip(names, gammas, weights, strict=True)
    ]
    facts = {
        "target": "target",
        "metric": "cosine",
        "verdict": "related",
        "sentence": "Mostly like the first.",
        "prior": "2026.1",
        "ranking": ranking,
        "projection": "pca",
    }
    return {
        "directed": False,
        "multigraph": False,
        "graph": facts,
        "nodes": [*nodes, target],
        "links": between + to_target,
    }


def falling(count: int) -> list[float]:
    return [0.97 - 0.6 * place / count for place in range(count)]


def alike(count: int) -> list[float]:
    return [1 / count] * count


def give_graph(waiting: Waiting, graph: dict[str, Any], **facts: Any) -> None:
    """As a worker leaves it once it has related the distortion."""
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        job = session.get_one(Job, waiting.running)
        job.graph = graph
        for name, value in facts.items():
            setattr(job, name, value)
        session.add(JobEvent(job_id=job.id, kind="graph", payload={}))


def boxes(page: Page, selector: str) -> list[Box]:
    found: list[Box] = page.evaluate(BOXES, [selector])
    return found


def overlaps(one: Box, other: Box) -> bool:
    beside = one["right"] <= other["left"] or other["right"] <= one["left"]
    return not beside and one["top"] < other["bottom"] and other["top"] < one["bottom"]


def clashes(labels: list[Box]) -> list[tuple[str, str]]:
    return [(one["text"], other["text"]) for one, other in itertools.combinations(labels, 2) if overlaps(one, other)]


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    ("names", "gammas", "spread"),
    [
        (ALL, falling(17), 1.0),
        (ALL, [1.0] * 17, 1.0),
        (ALL, falling(17), 0.02),  # All centres in one place.
        (PAPERS, falling(7), 1.0),
        (PAPERS, [0.0] * 7, 1.0),
        (ALL[5:15], falling(10), 0.5),
        (ALL[5:15], [1.0] * 10, 0.5),
        (["blur", "chroma_subsampling"], [1.0, 0.1], 1.0),
    ],
    ids=["all", "all-equal", "all-in-one-place", "papers", "papers-unlike", "ten", "ten-equal", "two"],
)
def test_no_label_of_the_relation_lies_on_another(
    waiting: Waiting, names: list[str], gammas: list[float], spread: float, size: ViewportSize
) -> None:
    give_graph(waiting, graph_of(names, gammas, alike(len(names)), spread=spread))
    page = waiting.page
    page.set_viewport_size(size)
    page.goto(f"/#/jobs/{waiting.running}")
    for drawing in ("relation", "scatter"):
        expect(page.locator(f"svg.{drawing}")).to_be_visible()
        labels = boxes(page, f"svg.{drawing} text")
        (frame,) = boxes(page, f"svg.{drawing}")
        assert clashes(labels) == []
        for label in labels:
            assert frame["left"] <= label["left"] < label["right"] <= frame["right"], label["text"]
            assert frame["top"] <= label["top"] < label["bottom"] <= frame["bottom"], label["text"]
    scattered = [label["text"] for label in boxes(page, "svg.scatter text")]
    assert sorted(scattered) == sorted([*names, "yours"])
    star = {label["text"] for label in boxes(page, "svg.relation text")}
    ranks = {str(place + 1) for place in range(len(names))}
    assert star >= set(names) or star >= ranks  # Each is named, or numbered as in the list beside it.
    listed = page.locator(".gammas").first
    for place in range(len(names)):
        expect(listed.get_by_role("listitem").nth(place)).to_contain_text(f"{place + 1} · ")
    assert clashes(boxes(page, ".heat thead span")) == []


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("count", [7, 17])
def test_the_rings_of_the_relation_are_told_and_behind_no_node(
    waiting: Waiting, count: int, size: ViewportSize
) -> None:
    give_graph(waiting, graph_of(ALL[:count], falling(count), alike(count)))
    page = waiting.page
    page.set_viewport_size(size)
    page.goto(f"/#/jobs/{waiting.running}")
    expect(page.locator("svg.relation")).to_be_visible()
    rings = [label for label in boxes(page, "svg.relation text") if label["text"].startswith("γ")]
    assert {ring["text"] for ring in rings} == {"γ = 0", "γ = 1"}
    nodes = boxes(page, "svg.relation .node, svg.relation .centre")
    assert [(ring["text"], node) for ring in rings for node in nodes if overlaps(ring, node)] == []


def phases(page: Page) -> list[str]:
    return page.get_by_role("region", name="Progress").get_by_role("listitem").all_inner_texts()


def test_a_job_whose_graph_shares_nothing_out_shows_no_transfer(waiting: Waiting) -> None:
    graph = graph_of(PAPERS, falling(7), [0.0] * 7, gain_db=0.5)
    give_graph(waiting, graph, phase="transferring")  # The worker names the phase before its first step.
    page = waiting.page
    page.goto(f"/#/jobs/{waiting.running}")
    promises = page.get_by_role("figure").filter(has_text="What learning it promises")
    expect(promises).to_contain_text("0.5")
    expect(promises).not_to_contain_text("%")
    expect(promises).not_to_contain_text("share")
    assert phases(page) == ["Reading the pairs", "Relating the distortion", "Fine-tuning", "Measuring", "Registering"]
    expect(page.locator("[aria-current=step]")).to_have_text("Fine-tuning")


def test_a_draft_that_is_given_transfer_steps_shows_its_transfer(waiting: Waiting) -> None:
    options = {"name": "scanner", "preset": "draft", "transfer_steps": 3}
    give_graph(waiting, graph_of(PAPERS, falling(7), alike(7), gain_db=0.5), phase="transferring", options=options)
    page = waiting.page
    page.goto(f"/#/jobs/{waiting.running}")
    expect(page.get_by_role("figure").filter(has_text="What learning it promises")).to_contain_text("14 %")
    assert "Transferring" in phases(page)
    expect(page.locator("[aria-current=step]")).to_have_text("Transferring")


@pytest.mark.parametrize(
    ("options", "transfers"),
    [
        ({}, True),
        ({"preset": "draft"}, False),
        ({"preset": "draft", "transfer_steps": 3}, True),
        ({"transfer_steps": 0}, False),
        ({"scheme": "baseline"}, False),
    ],
)
def test_before_the_graph_is_there_what_was_asked_for_tells_of_the_transfer(
    waiting: Waiting, options: dict[str, Any], transfers: bool
) -> None:
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        session.get_one(Job, waiting.running).options = {"name": "scanner", **options}
    page = waiting.page
    page.goto(f"/#/jobs/{waiting.running}")
    expect(page.get_by_role("progressbar", name="Progress of the training")).to_be_visible()
    assert ("Transferring" in phases(page)) == transfers


@pytest.mark.parametrize(
    ("losses", "levels_db"),
    [
        ([0.037312, 0.037315, 0.037311], [26.981, 26.984]),
        ([0.5, 0.5, 0.5], [30.0, 30.0]),
        ([0.9, 0.00012, 0.00011], [8.0, 41.5]),
        ([1e-6, 2e-6, 1.5e-6], [55.00001, 55.00002]),
    ],
    ids=["near", "constant", "far", "tiny"],
)
def test_no_two_levels_of_an_axis_read_alike(waiting: Waiting, losses: list[float], levels_db: list[float]) -> None:
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        for step, loss in enumerate(losses, 1):
            told = {"phase": "fine_tuning", "progress": 0.5, "eta_s": None, "candidate": "scratch", "step": step}
            session.add(JobEvent(job_id=waiting.running, kind="progress", payload=told | {"loss": loss}))
        for step, level in enumerate(levels_db, 1):
            look = {"candidate": "scratch", "step": step, "psnr_db": level, "input_psnr_db": level, "improved": True}
            about = {"pair": "001", "width": 8, "height": 8}
            session.add(JobEvent(job_id=waiting.running, kind="preview", payload=look | about))
    page = waiting.page
    page.goto(f"/#/jobs/{waiting.running}")
    curves = page.locator("svg.curve")
    expect(curves).to_have_count(2)
    for curve in curves.all():
        upright = curve.locator("g > .tick").all_text_contents()
        steps = curve.locator(":scope > .tick").all_text_contents()
        assert upright
        assert len(set(upright)) == len(upright), upright
        assert len(steps) >= 2
        assert len(set(steps)) == len(steps), steps
        name = curve.get_attribute("aria-label")
        assert clashes(boxes(page, f'svg.curve[aria-label="{name}"] text')) == []

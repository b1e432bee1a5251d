"""How every page looks and can be used: from a phone to a desktop, dark and light, and for assistive technology."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import DESKTOP, PHONE, Folders, Visit, Waiting, overflow, screenshots_wanted, serious_findings

pytestmark = pytest.mark.timeout(300)  # The first test waits for a training.

PAGES: dict[str, tuple[str, str | re.Pattern[str]]] = {
    "train": ("/", re.compile("Teach it")),
    "stored": ("/#/?dataset={dataset_id}", re.compile("Train on pairs")),
    "jobs": ("/#/jobs", "Jobs"),
    "job": ("/#/jobs/{id}", "trained"),
    "models": ("/#/models", "Models"),
    "model": ("/#/models/trained/1", "trained"),
    "restore": ("/#/restore?model=trained@1", "Restore an image"),
    "missing": ("/#/jobs/job_00", "Job"),
}


def settle(page: Page) -> None:
    """Wait until nothing is loading."""
    expect(page.locator(".skeleton")).to_have_count(0)
    page.wait_for_load_state("load")


def assert_usable(page: Page, state: str) -> None:
    """On a desktop and on a phone nothing is cut off, and axe finds nothing serious."""
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)
        page.wait_for_timeout(100)  # A frame or two, in which the drawings take their new width.
        assert overflow(page) <= 0, size
        assert serious_findings(page) == []
        if folder := screenshots_wanted():
            page.screenshot(path=folder / f"{state}-{size['width']}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits_and_has_no_serious_finding(
    visit: Visit, trained: dict[str, Any], name: str, scheme: str
) -> None:
    path, heading = PAGES[name]
    page = visit(path.format(**trained), color_scheme=scheme)
    expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
    settle(page)
    if name == "job":
        expect(page.get_by_role("img", name=re.compile("Embedding of"))).to_be_visible()
    assert_usable(page, f"{name}-{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pairs_and_results_fit_and_have_no_serious_finding(
    visit: Visit, folders: Folders, trained: dict[str, Any], scheme: str
) -> None:
    page = visit(color_scheme=scheme)
    page.get_by_label("Folder for Distorted images").set_input_files(folders[0].parent)
    expect(page.get_by_role("heading", name="5 pairs checked")).to_be_visible()
    page.get_by_text("Further options").click()
    assert_usable(page, f"checked-{scheme}")

    page.goto(f"/#/restore?model={trained['model']['reference']}")
    page.get_by_label("Files for Your image").set_input_files(folders[1] / "crop0.png")
    expect(page.get_by_label("Divider between Input and Restored")).to_be_visible()
    page.get_by_role("button", name="Zoom in").click()
    assert_usable(page, f"restored-{scheme}")

    page.goto("/#/models/trained/1")
    page.get_by_role("button", name="Look").first.click()
    expect(page.get_by_label("Divider between Input and Restored")).to_be_visible()
    assert_usable(page, f"looked-{scheme}")


def test_the_scheme_follows_the_system_until_one_is_chosen_and_is_then_remembered(visit: Visit) -> None:
    page = visit(color_scheme="dark")

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = background()
    page.emulate_media(color_scheme="light")
    light = background()
    assert dark != light
    page.get_by_role("button", name="Use dark colours").click()
    assert background() == dark
    page.reload()
    assert background() == dark


def test_headings_are_in_order_and_each_page_has_one_first(visit: Visit, trained: dict[str, Any]) -> None:
    for path, _ in PAGES.values():
        page = visit(path.format(**trained))
        settle(page)
        levels = page.eval_on_selector_all("h1, h2, h3", "(all) => all.map((one) => Number(one.tagName[1]))")
        assert levels.count(1) == 1
        assert levels[0] == 1


def test_nothing_is_asked_of_another_host(visit: Visit, trained: dict[str, Any]) -> None:
    page = visit("/#/models")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path, _ in PAGES.values():
        page.goto(path.format(**trained))
        settle(page)
    page.reload()
    settle(page)
    here = page.evaluate("location.origin")
    assert asked
    assert all(url.startswith((here, "blob:", "data:")) for url in asked)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("model", ["scanner", "auto", "a-scanner-whose-name-is-as-long-as-the-corridor-to-its-room@1"])
def test_the_chosen_model_can_be_read_whole(waiting: Waiting, model: str, width: int) -> None:
    page = waiting.page
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"/#/restore?model={model}")
    field = page.get_by_label("Model", exact=True)
    expect(field).to_have_value(model)
    expect(field.locator("option[value=auto]")).to_have_count(1)
    text, needed, room = field.evaluate(
        """(select) => {
            const { font, paddingLeft, paddingRight } = getComputedStyle(select);
            const pen = document.createElement("canvas").getContext("2d");
            pen.font = font;
            const text = select.selectedOptions[0].text;
            const arrow = 20;
            const room = select.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight) - arrow;
            return [text, pen.measureText(text).width, room];
        }"""
    )
    told = page.get_by_role("region", name="Options").get_by_text(text, exact=True).and_(page.locator("p"))
    assert needed <= room or told.is_visible(), (text, needed, room)


@pytest.mark.parametrize("width", [360, 1280])
def test_the_hint_about_pairs_is_not_squeezed_by_its_button(waiting: Waiting, width: int) -> None:
    page = waiting.page
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/")
    hint = page.get_by_text("3 to 30 pairs are plenty").bounding_box()
    zones = page.locator(".zones").bounding_box()
    assert hint is not None
    assert zones is not None
    assert hint["width"] > 0.7 * zones["width"]

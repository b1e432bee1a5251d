"""The further options of a training and of a restoring: what is typed is what is sent, and what is wrong is seen."""

import re
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.web.conftest import Folders, Waiting


def open_form(waiting: Waiting) -> Page:
    """The form that starts a training, on pairs that the service has; nothing is started."""
    page = waiting.page
    page.route("**/v1/jobs", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    page.route("**/pairs/*/*", lambda route: route.abort())  # The pairs' images are not what is looked at.
    page.goto(f"/#/?dataset={waiting.http.get('/v1/datasets').json()['items'][0]['id']}")
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()
    return page


def posted(page: Page) -> dict[str, Any]:
    """What the button sends."""
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/jobs")) as sent:
        page.get_by_role("button", name="Start training").click()
    options = sent.value.post_data_json
    assert isinstance(options, dict)
    return options


def test_numbers_are_sent_as_they_are_typed(waiting: Waiting) -> None:
    page = open_form(waiting)
    page.get_by_text("Further options").click()
    for label, text in {"Temperature": "0.05", "Inner rate": "1e-3", "Seed": "42"}.items():
        field = page.get_by_label(label, exact=True)
        field.press("Control+a")
        field.press_sequentially(text)
        expect(field).to_have_value(text)
    options = posted(page)
    assert (options["temperature"], options["inner_rate"], options["seed"]) == (0.05, 0.001, 42)

    seed = page.get_by_label("Seed", exact=True)
    seed.press("Control+a")
    seed.press("Backspace")
    expect(seed).to_have_value("")
    assert "seed" not in posted(page)  # The service's own.
    seed.press_sequentially("7")
    assert posted(page)["seed"] == 7


def test_a_decimal_scale_is_sent_as_it_is_typed(waiting: Waiting, folders: Folders) -> None:
    page = waiting.page
    page.goto("/#/restore?model=scanner@1")
    page.get_by_text("Further options").click()
    page.get_by_label("Outscale").press_sequentially("1.5")
    asked: list[str] = []

    def note(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    page.route("**/super-resolve*", note)
    page.get_by_label("Files for Your image").set_input_files(folders[1] / "crop0.png")
    expect(page.get_by_role("alert")).to_be_visible()
    assert [re.findall(r"outscale=([^&]*)", url) for url in asked] == [["1.5"]]


def test_a_wrong_value_is_shown_although_the_further_options_are_closed(waiting: Waiting) -> None:
    page = open_form(waiting)
    summary = page.get_by_text("Further options")
    summary.click()
    field = page.get_by_label("Inner rate", exact=True)
    field.fill("5")
    summary.click()
    expect(field).not_to_be_visible()
    page.get_by_role("button", name="Start training").click()
    expect(field).to_be_visible()
    expect(field).to_be_focused()


def test_the_box_for_a_new_version_stays_and_keeps_the_focus(waiting: Waiting) -> None:
    page = open_form(waiting)
    page.get_by_label("Name of the model").fill("scanner")
    box = page.get_by_label("A model of this name exists. Add a new version to it.")
    box.press("Space")
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    assert posted(page)["new_version"] is True
    box.press("Space")
    expect(box).not_to_be_checked()
    assert posted(page)["new_version"] is False

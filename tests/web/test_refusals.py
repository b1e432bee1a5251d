"""What is refused, or cannot be done, as the page tells it: once, in a visitor's words, with what to do about it."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.core.owners import OPEN, look_as
from app.core.tables import Pair
from tests.app.possessions import report
from tests.servers import eventually
from tests.web.conftest import Folders, Waiting
from tests.web.test_options import open_form, posted

WORDS_OF_THE_INTERFACE = re.compile(r"request body|[a-z]_[a-z]|`|fix=|\bfix\b")
REJECTED = {
    "verdict": "reject",
    "note": "The two images do not show the same scene.",
    "findings": [
        {
            "code": "unrelated",
            "severity": "error",
            "sentence": "The two images do not show the same scene.",
            "fix": None,
        }
    ],
}
MENDED: dict[str, Any] = {"applied": ["swap"], "originals": {"clean": "0" * 64, "distorted": "1" * 64}}


def give_pairs(waiting: Waiting, *changes: dict[str, Any]) -> str:
    """Have the stored dataset hold one pair for each of the changes to a good one; the dataset's id."""
    dataset_id = str(waiting.http.get("/v1/datasets").json()["items"][0]["id"])
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        first = session.get_one(Pair, (dataset_id, 0))
        blobs = {"clean_blob": first.clean_blob, "distorted_blob": first.distorted_blob}
        session.delete(first)
        session.flush()
        for position, change in enumerate(changes):
            row = Pair(dataset_id=dataset_id, position=position, name=f"{position:03}", **blobs)
            row.report = copy.deepcopy(report()) | change
            session.add(row)
    return dataset_id


def open_pairs(waiting: Waiting, dataset: str) -> Page:
    """The page of a stored dataset, whose images are there or are said to be not: none is on its way any more."""
    page = waiting.page
    page.goto(f"/#/?dataset={dataset}")
    expect(page.get_by_role("list", name="Pairs")).to_be_visible()
    on_its_way = "[...document.querySelectorAll('.thumb img')].filter((image) => !image.complete).length"
    eventually(lambda: page.evaluate(on_its_way) == 0, what="every image of a pair")
    return page


def said(page: Page) -> str:
    """The failure, once there is one."""
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    return alert.inner_text()


def test_a_file_that_is_no_image_is_refused_once_in_a_visitors_words(waiting: Waiting, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("Dear service,")
    page = waiting.page
    page.goto("/#/restore?model=scanner@1")
    page.get_by_label("Files for Your image").set_input_files(tmp_path / "letter.png")
    told = said(page)
    assert told.count("It is not an image") == 1
    assert not WORDS_OF_THE_INTERFACE.search(told), told


def test_an_empty_file_is_refused_in_a_visitors_words(waiting: Waiting, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    page = waiting.page
    page.goto("/#/restore?model=scanner@1")
    page.get_by_label("Files for Your image").set_input_files(tmp_path / "empty.png")
    told = said(page)
    assert "empty" in told
    assert not WORDS_OF_THE_INTERFACE.search(told), told


def test_a_damaged_image_of_a_pair_is_named_with_its_reason_once(
    waiting: Waiting, folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "crop1.png").write_bytes((folders[1] / "crop1.png").read_bytes()[:700])
    page = waiting.page
    page.goto("/")
    page.get_by_label("Files for Clean images").set_input_files([folders[0] / "crop0.png", folders[0] / "crop1.png"])
    page.get_by_label("Files for Distorted images").set_input_files([folders[1] / "crop0.png", tmp_path / "crop1.png"])
    told = said(page)
    assert told.count("crop1.png") == 1
    assert told.count("is damaged or incomplete") == 1


def test_no_training_starts_while_all_pairs_are_rejected_unless_it_is_insisted_on(waiting: Waiting) -> None:
    dataset = give_pairs(waiting, REJECTED, REJECTED)
    page = open_pairs(waiting, dataset)
    page.route("**/v1/jobs", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    start = page.get_by_role("button", name="Start training")
    expect(page.get_by_role("heading", name="2 pairs checked")).to_be_visible()
    expect(start).to_be_disabled()
    expect(start).to_have_accessible_description(re.compile("^None of the pairs can be trained on.*“Allow rejects”"))
    assert not WORDS_OF_THE_INTERFACE.search(page.get_by_role("main").inner_text())
    page.locator("summary").click()
    page.get_by_label("Allow rejects").check()
    expect(start).to_be_enabled()
    expect(start).to_have_accessible_description("")
    assert posted(page)["allow_rejects"] is True


def test_a_rejected_pair_among_others_is_told_before_the_service_would_refuse_it(waiting: Waiting) -> None:
    dataset = give_pairs(waiting, REJECTED, {}, {})
    page = open_pairs(waiting, dataset)
    start = page.get_by_role("button", name="Start training")
    expect(start).to_have_accessible_description(re.compile("^1 of 3 pairs cannot be trained on. Leave it out"))
    expect(start).to_be_disabled()
    refused = waiting.http.post("/v1/jobs", json={"dataset_id": dataset, "name": "refused"})
    assert refused.status_code == 422


@pytest.mark.parametrize("known", [True, False], ids=["before", "meanwhile"])
def test_a_taken_name_is_told_with_the_box_to_tick(waiting: Waiting, known: bool) -> None:
    page = waiting.page
    answer = page.request.get(f"{waiting.http.base_url}/v1/models").body()
    nobody = answer if known else b'{"items": [], "next": null}'
    page.route("**/v1/models?*", lambda route: route.fulfill(body=nobody, content_type="application/json"), times=1)
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
    waiting.http.post(f"/v1/jobs/{waiting.running}/cancel").raise_for_status()
    open_form(waiting)
    page.unroute_all()
    page.get_by_label("Name of the model").fill("scanner")
    box = page.get_by_label("A model of this name exists. Add a new version to it.")
    expect(box).to_have_count(int(known))
    page.get_by_role("button", name="Start training").click()
    told = said(page)
    assert "Choose another name" in told
    assert not WORDS_OF_THE_INTERFACE.search(told), told
    expect(box).not_to_be_checked()


@pytest.mark.parametrize(
    ("before_db", "now_db", "told"),
    [
        (26.61, 26.61, "Mended (swap): 26.61 dB, as before."),
        (20.0, 26.61, "Mended (swap): 20.00 dB before, 26.61 dB now."),
        (26.6101, 26.6099, "Mended (swap): 26.61 dB, as before."),
    ],
)
def test_what_mending_did_is_told_by_two_numbers_only_where_they_differ(
    waiting: Waiting, before_db: float, now_db: float, told: str
) -> None:
    before = report() | {"psnr_db": before_db}
    dataset = give_pairs(waiting, {"psnr_db": now_db, "fixed": MENDED | {"before": before}})
    page = open_pairs(waiting, dataset)
    expect(page.get_by_role("list", name="Pairs")).to_contain_text(told)


@pytest.mark.parametrize("side", ["clean", "distorted"])
def test_an_image_that_the_service_has_lost_is_told_in_a_sentence(waiting: Waiting, side: str) -> None:
    dataset = give_pairs(waiting, {}, {})
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        setattr(session.get_one(Pair, (dataset, 1)), f"{side}_blob", "0" * 64)
    lost = waiting.http.get(f"/v1/datasets/{dataset}/pairs/1/{side}")
    assert lost.status_code == 410
    page = open_pairs(waiting, dataset)
    whole, broken = page.get_by_role("list", name="Pairs").locator("> li").all()
    expect(broken).to_contain_text(f"The service has lost the {side} image.")
    expect(broken.get_by_role("img")).to_have_count(1)
    expect(whole.get_by_role("img")).to_have_count(2)
    expect(whole).not_to_contain_text("lost")

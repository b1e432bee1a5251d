"""The main job as a visitor does it: pairs in, watch, understand, restore; by mouse, and by keyboard alone."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FileChooser, Page, Route, expect

from tests.servers import RunningService, eventually
from tests.web.conftest import PHONE, Folders, Visit

pytestmark = pytest.mark.timeout(300)  # Some wait for a training.

FOCUSED = """(() => {
    const { activeElement: focused, body } = document;
    return focused === body ? "" : focused.labels?.[0]?.textContent || focused.textContent;
})()"""


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def give_pairs(page: Page, folders: Folders) -> None:
    clean, distorted = folders
    page.get_by_label("Files for Distorted images").set_input_files(files_of(distorted))
    page.get_by_label("Files for Clean images").set_input_files(files_of(clean))
    expect(page.get_by_role("heading", name="5 pairs checked")).to_be_visible()


def shorten(page: Page) -> None:
    """A training of seconds, through the page's own further options."""
    page.get_by_text("Further options").click()
    page.get_by_label("Transfer steps").fill("2")
    page.get_by_label("Finetune steps").fill("6")


def expect_images_to_load(page: Page, selector: str) -> None:
    loaded = f"[...document.querySelectorAll({selector!r})].every((image) => image.complete && image.naturalWidth > 0)"
    present = f"document.querySelectorAll({selector!r}).length > 0"
    # Not `wait_for_function`, whose waiting in the page the page's policy forbids.
    eventually(lambda: page.evaluate(f"{present} && {loaded}"), what=f"the images of {selector}")


def test_pairs_become_a_model_that_restores_an_image_all_by_clicks(
    visit: Visit, folders: Folders, service: RunningService
) -> None:
    page = visit()
    give_pairs(page, folders)
    rows = page.get_by_role("list", name="Pairs").locator("> li")  # Findings are lists of their own.
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("dB")
    expect_images_to_load(page, ".thumb img")
    expect(page.get_by_text(re.compile("about .* on two CPU cores|as .* here took")).first).to_be_visible()

    page.get_by_label("Name of the model").fill("by-clicks")
    page.get_by_role("form", name="Start the training").evaluate("(form) => form.scrollIntoView()")
    start = page.get_by_role("button", name="Start training")
    expect(start).to_be_in_viewport(ratio=1)  # However much of the form stands above it.
    shorten(page)
    expect(start).to_be_in_viewport(ratio=1)
    start.click()
    page.wait_for_url("**/#/jobs/job_*")
    expect(page.get_by_role("progressbar", name="Progress of the training")).to_be_visible()
    page.reload()  # In the middle: nothing may be lost.
    expect(page.get_by_role("heading", name="by-clicks")).to_be_visible()

    expect(page.get_by_role("heading", name="What your device's distortion is like")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Relation graph. γ by distortion"))).to_be_visible()
    expect(page.get_by_role("table").filter(has_text="yours")).to_contain_text("mild")
    expect(page.get_by_role("img", name=re.compile("Embedding of"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Best (so far|look): a crop"))).to_be_visible()
    expect_images_to_load(page, ".preview img")
    expect(page.get_by_role("img", name=re.compile("Training loss by training step"))).to_be_visible()

    expect(page.get_by_role("heading", name=re.compile("Your model is ready|No gain this time"))).to_be_visible(
        timeout=90_000
    )
    page.reload()
    expect_images_to_load(page, ".preview img")
    page.get_by_role("link", name="See the model").click()
    expect(page.get_by_role("heading", name="Card")).to_be_visible()
    expect(page.get_by_text("4 of 5 pairs, 1 held out")).to_be_visible()
    page.get_by_role("button", name="Look").first.click()
    expect(page.get_by_label("Divider between Input and Restored")).to_be_visible()
    expect_images_to_load(page, ".stage img")

    page.get_by_role("link", name="Restore an image").click()
    with page.expect_response("**/v1/operations/*/result") as answer:
        page.get_by_label("Files for Your image").set_input_files(files_of(folders[1])[0])
    expect(page.get_by_label("Divider between Input and Restored")).to_be_visible()
    took_s = sum(map(float, re.findall(r"dur=([\d.]+)", answer.value.headers["server-timing"]))) / 1000
    told = re.search(r" in ([\d.]+) s,", page.get_by_role("status").filter(has_text="Restored by").inner_text())
    assert told is not None
    assert float(told[1]) == pytest.approx(took_s, abs=0.051)  # In the queue and in all steps of the work.
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download").click()
    restored = Image.open(saved.value.path())
    model = page.get_by_label("Model").input_value()
    direct = service.http.post(
        f"/v1/models/{model}/super-resolve",
        content=files_of(folders[1])[0].read_bytes(),
        headers={"Content-Type": "image/png"},
    )
    assert np.array_equal(np.asarray(restored), np.asarray(Image.open(io.BytesIO(direct.content))))


def test_the_keyboard_alone_is_enough(visit: Visit, folders: Folders) -> None:
    page = visit()

    def tab_to(name: str) -> None:
        """Walk there by the tabulator, as somebody without a mouse does."""
        for _ in range(60):
            page.keyboard.press("Tab")
            if name in page.evaluate(FOCUSED):
                return
        raise AssertionError(f"{name} cannot be reached by the keyboard")

    answers: list[Path | list[Path]] = [files_of(folders[1]), files_of(folders[0]), files_of(folders[1])[0]]

    def choose(chooser: FileChooser) -> None:
        chooser.set_files(answers.pop(0))

    # One listener for all: with one for each, the first key may come before the browser hands its dialogs over.
    page.on("filechooser", choose)
    for zone in ("Distorted images", "Clean images"):
        tab_to(f"Choose files for {zone}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("group", name=zone)).to_contain_text("5 images")
    expect(page.get_by_role("heading", name="5 pairs checked")).to_be_visible()
    tab_to("Name of the model")
    page.keyboard.press("Control+a")
    page.keyboard.type("by-keys")
    tab_to("Further options")
    page.keyboard.press("Enter")
    tab_to("Transfer steps")
    page.keyboard.type("2")
    tab_to("Finetune steps")
    page.keyboard.type("6")
    tab_to("Start training")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="by-keys")).to_be_focused()
    expect(page.get_by_role("heading", name=re.compile("Your model is ready|No gain"))).to_be_visible(timeout=90_000)
    tab_to("Restore an image")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Restore an image")).to_be_focused()
    tab_to("Choose files for Your images")
    page.keyboard.press("Enter")
    divider = page.get_by_label("Divider between Input and Restored")
    expect(divider).to_have_value("50")
    divider.focus()
    page.keyboard.press("ArrowLeft")
    expect(divider).to_have_value("49.5")
    page.keyboard.press("+")
    expect(page.locator(".stage.zoomed")).to_be_visible()
    page.keyboard.press("0")
    expect(page.locator(".stage.zoomed")).to_have_count(0)


def test_files_that_are_dropped_are_paired_by_name(visit: Visit, folders: Folders) -> None:
    page = visit()
    for zone, folder in (("Clean images", folders[0]), ("Distorted images", folders[1])):
        contents = [[path.name, list(path.read_bytes())] for path in files_of(folder)[:3]]
        transfer = page.evaluate_handle(
            """(files) => {
                const transfer = new DataTransfer();
                for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name));
                return transfer;
            }""",
            contents,
        )
        page.get_by_role("group", name=zone).dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_role("heading", name="3 pairs checked")).to_be_visible()


def test_one_folder_with_both_sides_is_understood(visit: Visit, folders: Folders) -> None:
    page = visit()
    page.get_by_label("Folder for Distorted images").set_input_files(folders[0].parent)
    expect(page.get_by_role("heading", name="5 pairs checked")).to_be_visible()


def test_a_pair_without_its_partner_is_shown_and_can_be_removed(visit: Visit, folders: Folders) -> None:
    page = visit()
    page.get_by_label("Files for Clean images").set_input_files(files_of(folders[0]))
    page.get_by_label("Files for Distorted images").set_input_files(files_of(folders[1])[1:])
    expect(page.get_by_text("There is no distorted image of this name.")).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_disabled()
    page.get_by_role("button", name="Remove pair crop0").click()
    expect(page.get_by_role("heading", name="4 pairs checked")).to_be_visible()


def test_images_that_the_service_does_not_read_are_named_and_those_made_of_them_taken(
    visit: Visit, folders: Folders, tmp_path: Path
) -> None:
    for side, source in zip(("clean", "distorted"), folders, strict=True):
        (tmp_path / side).mkdir()
        for name in ("crop0.png", "crop1.png"):
            (tmp_path / side / name).write_bytes((source / name).read_bytes())
        (tmp_path / side / "crop0.NEF").write_bytes(b"the negative of crop0")
        (tmp_path / side / "IMG_7.HEIC").write_bytes(b"nobody converted it")
    page = visit()
    page.get_by_label("Folder for Distorted images").set_input_files(tmp_path)
    note = page.get_by_text("of a format that the service does not read")
    expect(note).to_contain_text("2 files left out")
    for side in ("clean", "distorted"):
        expect(note).to_contain_text(f"{tmp_path.name}/{side}/IMG_7.HEIC")
    expect(page.get_by_role("heading", name=re.compile("2 pairs"))).to_be_visible()


def test_a_damaged_file_is_named_with_its_reason(visit: Visit, folders: Folders, tmp_path: Path) -> None:
    for name in ("crop1", "crop2"):
        (tmp_path / f"{name}.png").write_bytes((folders[1] / f"{name}.png").read_bytes()[:700])
    page = visit()
    page.get_by_label("Files for Clean images").set_input_files([folders[0] / "crop1.png", folders[0] / "crop2.png"])
    page.get_by_label("Files for Distorted images").set_input_files(files_of(tmp_path))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("2 files cannot be used.")
    for name in ("crop1.png", "crop2.png"):
        expect(alert.get_by_role("listitem").filter(has_text=name)).to_contain_text("damaged")
    page.get_by_role("button", name="Start over").last.click()
    expect(alert).to_have_count(0)


def test_a_taken_name_asks_for_a_new_version(visit: Visit, folders: Folders, trained: dict[str, Any]) -> None:
    page = visit()
    give_pairs(page, folders)
    page.get_by_label("Name of the model").fill(trained["name"])
    expect(page.get_by_text("A model of this name exists. Add a new version to it.")).to_be_visible()
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("alert")).to_contain_text("exists. Choose another name")
    page.get_by_label("Name of the model").fill("Not A Name")
    expect(page.get_by_text("Lower-case letters, digits")).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_disabled()


def test_a_cancelled_job_says_so_and_what_comes_next(visit: Visit, service: RunningService) -> None:
    page = visit(f"/#/jobs/{service.post_job('cancelled', finetune_steps=2000)}", viewport=PHONE)
    page.get_by_role("button", name="Cancel the training").click()
    expect(page.get_by_role("heading", name="The training was cancelled")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("link", name="Start another")).to_be_visible()


def test_what_is_not_there_is_said_in_words(visit: Visit, trained: dict[str, Any]) -> None:
    page = visit("/#/jobs/job_00")
    expect(page.get_by_role("alert")).to_contain_text("There is no job job_00.")
    page.goto("/#/models/nobody")
    expect(page.get_by_role("alert")).to_contain_text("There is no model named 'nobody'.")
    page.goto("/#/nowhere")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


def test_a_malformed_address_is_no_page(visit: Visit) -> None:
    missing = re.compile("There is no such page")
    page = visit("/#/models/100%")  # On arrival, and on the way from another page.
    expect(page.get_by_role("heading", name=missing)).to_be_visible()
    page.get_by_role("link", name="Go to the beginning").click()
    expect(page.get_by_role("heading", name="Teach it")).to_be_visible()
    page.goto("/#/jobs/%E0%A4")
    expect(page.get_by_role("heading", name=missing)).to_be_visible()


def test_an_image_that_is_none_is_refused_in_words(visit: Visit, trained: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("Dear service,")
    page = visit(f"/#/restore?model={trained['model']['reference']}")
    page.get_by_label("Files for Your image").set_input_files(tmp_path / "letter.png")
    expect(page.get_by_role("alert")).to_contain_text("It is not an image")


@pytest.mark.parametrize("answered_at_once", [False, True])
def test_a_result_says_how_well_the_model_fits_in_a_word_and_a_sentence(
    visit: Visit, service: RunningService, trained: dict[str, Any], folders: Folders, answered_at_once: bool
) -> None:
    def answer_when_done(route: Route) -> None:
        """As a service does that is quicker than its own answer."""
        operation = f"/v1/operations/{route.fetch().json()['id']}"
        eventually(lambda: service.http.get(operation).json()["state"] == "succeeded", what="the restoring")
        route.fulfill(status=202, json=service.http.get(operation).json())

    page = visit(f"/#/restore?model={trained['model']['reference']}")
    if answered_at_once:
        page.route("**/super-resolve", answer_when_done)
    with page.expect_response("**/v1/operations/*/result") as answer:
        page.get_by_label("Files for Your image").set_input_files(files_of(folders[1])[0])
    facts = service.http.get(answer.value.url.removesuffix("/result")).json()["facts"]
    told = page.get_by_role("status").filter(has_text="Restored by")
    expect(told).to_contain_text(f"trained on: {facts['match_word']}. {facts['match_note']}")
    expect(told.get_by_title(f"Score {facts['match']:.2f} of 1")).to_have_text(facts["match_word"])
    assert facts["match_note"].startswith("The image is distorted")


def test_a_service_that_is_away_is_told_and_tried_again(visit: Visit, trained: dict[str, Any]) -> None:
    page = visit("/#/models")
    page.context.set_offline(True)
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("link", name=re.compile(trained["name"]))).to_be_visible()


def test_the_version_in_use_is_changed_by_a_click(visit: Visit, service: RunningService) -> None:
    for _ in range(2):
        job = service.wait_for_end(service.post_job("twice", finetune_steps=2, new_version="true"))
        assert job["state"] == "succeeded"
    service.http.put("/v1/models/twice/aliases/production", json={"version": 1}).raise_for_status()
    page = visit("/#/models/twice/2")
    page.get_by_role("button", name="Use version 2 by default").click()
    expect(page.get_by_text("production")).to_be_visible()
    assert service.http.get("/v1/models/twice").json()["aliases"] == {"production": 2}

"""Files that a visitor gives for a training: none goes without a word, and none is replaced by the page itself."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.web.conftest import Folders, Waiting


def give(page: Page, folders: Folders, count: int) -> None:
    for label, folder in zip(("Clean images", "Distorted images"), folders, strict=True):
        page.get_by_label(f"Files for {label}").set_input_files(sorted(folder.iterdir())[:count])
    expect(page.get_by_role("heading", name=f"{count} pairs checked")).to_be_visible()


def test_files_of_which_none_can_be_read_are_told_and_take_nothing_away(
    waiting: Waiting, folders: Folders, tmp_path: Path
) -> None:
    for name in ("pairs.7z", "notes.txt"):
        (tmp_path / name).write_bytes(b"no image")
    page = waiting.page
    page.goto("/")
    zone = page.get_by_label("Files for Distorted images")
    note = page.get_by_text("2 files given, none of them an image or a zip that can be read here.")
    zone.set_input_files([tmp_path / "pairs.7z", tmp_path / "notes.txt"])
    expect(note).to_be_visible()
    give(page, folders, 3)
    expect(note).to_have_count(0)
    zone.set_input_files([tmp_path / "pairs.7z", tmp_path / "notes.txt"])
    expect(note).to_be_visible()
    expect(page.get_by_role("heading", name="3 pairs checked")).to_be_visible()


def test_images_of_equal_names_on_one_side_are_told_and_one_given_again_is_none(
    waiting: Waiting, folders: Folders, tmp_path: Path
) -> None:
    for side, source in zip(("clean", "distorted"), folders, strict=True):
        for below in ("a", "b"):
            (tmp_path / side / below).mkdir(parents=True)
            (tmp_path / side / below / "crop0.png").write_bytes((source / "crop0.png").read_bytes())
        (tmp_path / side / "crop1.png").write_bytes((source / "crop1.png").read_bytes())
    page = waiting.page
    page.goto("/")
    page.get_by_label("Folder for Distorted images").set_input_files(tmp_path)
    note = page.get_by_text("left out: another one on the same side has the same name. Give each its own.")
    expect(note).to_contain_text("2 images left out")
    expect(page.get_by_role("heading", name="2 pairs checked")).to_be_visible()
    page.get_by_label("Files for Clean images").set_input_files(folders[0] / "crop0.png")
    expect(note).to_contain_text("1 image left out")
    page.get_by_label("Files for Distorted images").set_input_files(folders[1] / "crop0.png")
    expect(note).to_have_count(0)


def test_late_demo_pairs_do_not_replace_files_given_meanwhile(waiting: Waiting, folders: Folders) -> None:
    page = waiting.page
    page.route("**/demo/pairs.zip", lambda route: None)  # It never comes.
    page.goto("/")
    with page.expect_request("**/demo/pairs.zip"):
        page.get_by_role("button", name="Try with demo pairs").click()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/demo/pairs.zip")):
        give(page, folders, 3)
    expect(page.get_by_role("group", name="Clean images")).to_contain_text("3 images")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_role("button", name="Try with demo pairs")).to_be_enabled()


def test_a_late_demo_photo_does_not_replace_an_image_given_meanwhile(waiting: Waiting, folders: Folders) -> None:
    page = waiting.page
    page.route("**/demo/photo.png", lambda route: None)
    page.goto("/#/restore?model=scanner@1")
    with page.expect_request("**/demo/photo.png"):
        page.get_by_role("button", name="Use a demo photo").click()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/demo/photo.png")):
        page.get_by_label("Files for Your image").set_input_files(folders[1] / "crop0.png")
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    expect(page.get_by_role("group", name="Your image")).to_contain_text("crop0.png")


def test_the_focus_goes_to_the_neighbour_of_a_pair_that_is_removed(waiting: Waiting, folders: Folders) -> None:
    page = waiting.page
    page.goto("/")
    give(page, folders, 4)
    for gone, heir, left in (("crop1", "crop2", 3), ("crop3", "crop2", 2)):  # The last one has none below it.
        page.get_by_role("button", name=f"Remove pair {gone}").press("Enter")
        expect(page.get_by_role("button", name=f"Remove pair {gone}")).to_have_count(0)
        expect(page.get_by_role("button", name=f"Remove pair {heir}")).to_be_focused()
        expect(page.get_by_role("heading", name=re.compile(f"{left} pairs checked"))).to_be_visible()
        expect(page.get_by_role("button", name=f"Remove pair {heir}")).to_be_focused()

"""Images through a model, on the page: several at once, each by itself; and files that a browser cannot show."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.servers import RunningService
from tests.web.conftest import DESKTOP, PHONE, Folders, Visit, Waiting, overflow, serious_findings

pytestmark = pytest.mark.timeout(300)  # The first test waits for a training.


def give(page: Page, *files: Path) -> None:
    page.get_by_label("Files for Your images").set_input_files(files)


def rows(page: Page) -> Any:
    return page.get_by_role("list", name="Your images, restored").locator("> li")


def test_several_images_are_restored_in_turn_and_a_bad_one_stops_no_other(
    visit: Visit, service: RunningService, trained: dict[str, Any], folders: Folders, tmp_path: Path
) -> None:
    bad = tmp_path / "letter.png"
    bad.write_text("Dear service,")
    reference = trained["model"]["reference"]
    page = visit(f"/#/restore?model={reference}")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "super-resolve" in request.url else None)
    first, last = folders[1] / "crop0.png", folders[1] / "crop1.png"
    give(page, first, bad, last)
    good, refused, other = (rows(page).nth(place) for place in range(3))
    expect(rows(page)).to_have_count(3)
    expect(refused.get_by_role("alert")).to_contain_text("It is not an image")
    for row, file in ((good, first), (other, last)):
        expect(row.get_by_role("heading", name=file.name)).to_be_visible()
        expect(row.get_by_role("status")).to_contain_text(f"Restored by {reference}")
        with page.expect_download() as saved:
            row.get_by_role("link", name="Download").click()
        assert saved.value.suggested_filename == f"{file.stem}-restored.png"
        direct = service.http.post(
            f"/v1/models/{reference}/super-resolve",
            content=file.read_bytes(),
            headers={"Content-Type": "image/png"},
        ).raise_for_status()
        restored = Image.open(saved.value.path())
        assert np.array_equal(np.asarray(restored), np.asarray(Image.open(io.BytesIO(direct.content))))
    expect(page.get_by_role("group", name="Your images")).to_contain_text("3 files, 3 done")
    assert len(sent) == 3

    expect(page.locator(".compare")).to_have_count(0)
    other.get_by_role("button", name="Look at crop1.png").press("Enter")
    expect(other.get_by_label("Divider between Input and Restored")).to_be_visible()
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)
        page.wait_for_timeout(100)
        assert overflow(page) <= 0
        assert serious_findings(page) == []
    other.get_by_role("button", name="Close").click()
    expect(page.locator(".compare")).to_have_count(0)

    refused.get_by_role("button", name="Try again").click()
    expect(refused.get_by_role("alert")).to_contain_text("It is not an image")
    assert len(sent) == 4


def test_images_go_one_after_the_other_and_each_can_be_left_out_or_stopped(waiting: Waiting, folders: Folders) -> None:
    """Nobody restores here, so the first one waits until it is stopped."""
    page = waiting.page
    page.goto("/#/restore?model=scanner@1")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "super-resolve" in request.url else None)
    give(page, *(folders[1] / f"crop{number}.png" for number in range(3)))
    one, two, three = (rows(page).nth(place) for place in range(3))
    expect(one).to_contain_text("Waiting for a worker")
    for row in (two, three):
        expect(row).to_contain_text("Waiting for its turn")
    assert len(sent) == 1
    two.get_by_role("button", name="Leave out").click()
    expect(two).to_contain_text("Stopped.")
    one.get_by_role("button", name="Stop waiting").click()
    expect(one).to_contain_text("Stopped.")
    expect(three).to_contain_text("Waiting for a worker")
    assert len(sent) == 2
    expect(page.get_by_role("button", name="Restore again with these")).to_have_count(0)
    operations = waiting.http.get("/v1/operations").json()["items"]
    assert [each["state"] for each in operations[:2]] == ["queued", "cancelled"]
    three.get_by_role("button", name="Stop waiting").click()
    two.get_by_role("button", name="Restore it").click()
    expect(two).to_contain_text("Waiting for a worker")
    assert len(sent) == 3


def test_images_that_are_given_anew_take_the_place_of_those_before(waiting: Waiting, folders: Folders) -> None:
    page = waiting.page
    page.goto("/#/restore?model=scanner@1")
    give(page, folders[1] / "crop0.png", folders[1] / "crop1.png")
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first).to_contain_text("Waiting for a worker")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)
        route.continue_()

    page.route("**/super-resolve", hold)
    give(page, folders[1] / "crop2.png")
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("group", name="Your images")).to_contain_text("crop2.png")
    expect(rows(page)).to_contain_text("Waiting for a worker")
    page.wait_for_timeout(1000)  # In which the second of those before would be sent.
    assert len(held) == 1


def as_tiff(source: Path, folder: Path) -> Path:
    target = folder / f"{source.stem}.tif"
    with Image.open(source) as image:
        image.save(target)
    return target


def expect_shown(page: Page, *names: str) -> None:
    """Images of the result, all of which the browser has drawn."""
    pictures = page.get_by_role("region", name="Result").get_by_role("img")
    expect(pictures).to_have_count(len(names))
    for picture, name in zip(pictures.all(), names, strict=True):
        expect(picture).to_have_accessible_name(name)
        assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0


def test_the_result_of_a_tiff_is_shown_without_the_comparison_that_a_browser_cannot_make(
    visit: Visit, trained: dict[str, Any], folders: Folders, tmp_path: Path
) -> None:
    page = visit(f"/#/restore?model={trained['model']['reference']}")
    give(page, as_tiff(folders[1] / "crop0.png", tmp_path))
    result = page.get_by_role("region", name="Result")
    expect(result).to_contain_text("A browser cannot show the file that you sent")
    expect_shown(page, "The restored image")
    expect(result).to_contain_text(re.compile(r", \d+×\d+, "))
    expect(page.locator(".compare")).to_have_count(0)


def test_a_result_as_tiff_is_there_to_download_and_the_page_says_how_to_see_it(
    visit: Visit, trained: dict[str, Any], folders: Folders
) -> None:
    page = visit(f"/#/restore?model={trained['model']['reference']}")
    page.get_by_label("Format of the result").select_option("image/tiff")
    give(page, folders[1] / "crop0.png")
    result = page.get_by_role("region", name="Result")
    expect(result).to_contain_text("A browser cannot show the TIFF that came back")
    expect(result).to_contain_text("choose PNG")
    expect_shown(page, "Your image")
    with page.expect_download() as saved:
        result.get_by_role("link", name="Download").click()
    with Image.open(saved.value.path()) as downloaded:
        assert downloaded.format == "TIFF"
    page.get_by_label("Format of the result").select_option("image/png")
    page.get_by_role("button", name="Restore again with these").click()
    expect(page.get_by_label("Divider between Input and Restored")).to_be_visible()

"""A locked service seen by a browser: it asks for a key, and with one everything is there, images and events too."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core import keys
from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected
from tests.app.possessions import fill
from tests.web.conftest import DESKTOP, PATIENCE_MS, Folders, serious_findings

LOADS = """address => new Promise((tell) => {
  const image = new Image();
  image.onload = () => tell(true);
  image.onerror = () => tell(false);
  image.src = address;
})"""
HEARS = """address => new Promise((tell) => {
  const events = new EventSource(address);
  events.addEventListener("started", () => (events.close(), tell(true)));
  events.onerror = () => (events.close(), tell(false));
})"""
Locked = tuple[str, str, dict[str, str]]  # URL, token, ids of what its owner has


@pytest.fixture
def locked(tmp_path: Path, valkey_url: str, sqlite_template: Path) -> Iterator[Locked]:
    (tmp_path / "drtl.sqlite3").write_bytes(sqlite_template.read_bytes())
    settings = Settings(data_dir=tmp_path, broker_url=valkey_url)
    assert settings.blob_dir is not None
    engine = open_database(settings.database_url)
    ids = fill(sessions(engine), FolderStorage(settings.blob_dir), "alice")
    with sessions(engine).begin() as session:
        _, token = keys.create(session, "alice", ["read", "train", "infer"])
    engine.dispose()
    with connected(create_app(settings)) as client:
        yield str(client.base_url), token, ids


@pytest.fixture
def page(browser: Browser, locked: Locked) -> Iterator[Page]:
    """A page of the locked service; the test fails where the browser bars something or a script fails."""
    complaints: list[str] = []
    context = browser.new_context(base_url=locked[0], viewport=DESKTOP)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None,
    )
    page.goto("/#/jobs")
    yield page
    context.close()
    assert complaints == []


def test_the_page_asks_for_a_key_and_with_one_shows_and_does_everything(page: Page, locked: Locked) -> None:
    _, token, ids = locked
    prompt = page.get_by_role("heading", name="This service needs a key")
    expect(prompt).to_be_visible()
    assert serious_findings(page) == []
    page.get_by_label("API key").fill("drtl_wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert")).to_contain_text("does not take this key")

    page.get_by_label("API key").fill(token)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("link", name="scanner").first).to_be_visible()
    expect(prompt).not_to_be_visible()
    assert page.evaluate(LOADS, f"/v1/jobs/{ids['job_id']}/preview")
    assert page.evaluate(LOADS, f"/v1/datasets/{ids['dataset_id']}/pairs/0/clean")
    assert page.evaluate(HEARS, f"/v1/jobs/{ids['job_id']}/events")
    assert token not in page.evaluate("document.cookie")

    page.goto(f"/#/jobs/{ids['job_id']}")
    page.get_by_role("button", name="Cancel the training").click()
    expect(page.get_by_role("button", name="Stopping")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="scanner")).to_be_visible()
    expect(prompt).not_to_be_visible()


@pytest.mark.parametrize("place", ["/#/", "/#/models", "/#/restore", "/#/nowhere"])
def test_every_page_asks_for_the_key_on_arrival(page: Page, place: str) -> None:
    page.goto("about:blank")  # From page to page only what is behind the # would change, which is no arrival.
    page.goto(place)
    expect(page.get_by_role("heading", level=1)).to_have_text("This service needs a key")


def test_pairs_are_chosen_once_on_a_locked_service(page: Page, locked: Locked, folders: Folders) -> None:
    page.goto("about:blank")
    page.goto("/")
    page.get_by_label("API key").fill(locked[1])
    page.keyboard.press("Enter")
    page.get_by_label("Folder for Distorted images").set_input_files(folders[0].parent)
    expect(page.get_by_role("heading", name="5 pairs checked")).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/#/jobs/job_*")


def log_in(page: Page, token: str) -> None:
    page.get_by_label("API key").fill(token)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("link", name="scanner").first).to_be_visible()


def test_a_stream_goes_on_after_its_ticket_is_gone(page: Page, locked: Locked) -> None:
    _, token, ids = locked
    log_in(page, token)
    page.context.clear_cookies()
    with page.expect_response(lambda answer: "/events" in answer.url and answer.status == 200):
        page.goto(f"/#/jobs/{ids['job_id']}")
    assert page.evaluate(LOADS, f"/v1/jobs/{ids['job_id']}/preview")


def test_a_ticket_that_has_run_out_is_renewed_and_tried_again_after_a_failure(page: Page, locked: Locked) -> None:
    _, token, ids = locked
    preview = f"/v1/jobs/{ids['job_id']}/preview"
    page.clock.install()
    page.reload()
    log_in(page, token)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.context.clear_cookies()
    page.route("**/v1/session", lambda route: route.abort())
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/session")):
        page.clock.fast_forward("51:00")  # As a sleep does: each timer runs once, however late.
    assert not page.evaluate(LOADS, f"{preview}#before")
    page.unroute("**/v1/session")
    with page.expect_response("**/v1/session"):
        page.clock.fast_forward("01:00")
    assert page.evaluate(LOADS, f"{preview}#after")


def test_a_key_that_was_revoked_is_asked_for_again_on_arrival(page: Page) -> None:
    page.evaluate("sessionStorage.setItem('key', 'drtl_revoked')")
    page.goto("about:blank")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("This service needs a key")


def test_a_service_that_is_away_on_arrival_is_told_of_by_the_page(page: Page) -> None:
    page.goto("about:blank")
    page.route("**/v1/**", lambda route: route.abort())
    page.goto("/#/models")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")

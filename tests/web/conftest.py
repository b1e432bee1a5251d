"""A real Chromium on the real embedded service: what a visitor of the web page has."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright
from sqlalchemy.orm import Session, sessionmaker

from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.owners import OPEN
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected
from tests.app.possessions import fill
from tests.images import image_pairs
from tests.servers import RunningService, embedded_service

ARGUMENTS = [
    "--no-sandbox",  # Its sandbox needs privileges that containers do not have; the pages are our own.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 40_000  # The service trains meanwhile, on a machine that may be busy with other things.
PHONE, DESKTOP = ViewportSize(width=390, height=844), ViewportSize(width=1280, height=860)

Visit = Callable[..., Page]
Folders = tuple[Path, Path]


def chromium() -> str:
    """The browser of this machine; Playwright's own download is not needed."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on PATH; on Debian and Ubuntu: apt install chromium")
    return found


# It ends with the file: Playwright's event loop must not be there when other tests start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for all tests of the pages; each uses names of its own."""
    with embedded_service(tmp_path_factory.mktemp("web") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def trained(service: RunningService) -> dict[str, Any]:
    """A job that has succeeded, and left a model."""
    job = service.wait_for_end(service.post_job("trained", pairs=4, finetune_steps=4), timeout_s=240)
    assert job["state"] == "succeeded", job["error"]
    return job


def complaints_of(page: Page) -> list[str]:
    """Fills with the scripts' errors and with what the browser bars."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        # A refused request is the service's word, which the page tells; the browser's own line says no more.
        lambda said: (
            complaints.append(said.text)
            if said.type == "error" and "Failed to load resource" not in said.text
            else None
        ),
    )
    return complaints


@pytest.fixture
def visit(browser: Browser, service: RunningService) -> Iterator[Visit]:
    """Open a page of the service. The test fails where the browser complains of an error or of a barred load."""
    contexts: list[BrowserContext] = []
    heard: list[list[str]] = []

    def open_page(path: str = "/", **options: Any) -> Page:
        context = browser.new_context(base_url=service.url, **({"viewport": DESKTOP} | options))
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        heard.append(complaints_of(page))
        page.goto(path)
        page.get_by_role("heading", level=1).first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [complaint for complaints in heard for complaint in complaints] == []


@dataclass(frozen=True)
class Waiting:
    """A service without workers, whose jobs wait for ever, and a page of it that is still to be opened."""

    http: httpx.Client
    page: Page
    rows: sessionmaker[Session]
    running: str  # a job that seems to run

    def queue(self, count: int) -> list[str]:
        """Put jobs into the queue; their ids."""
        dataset_id = self.http.get("/v1/datasets").json()["items"][0]["id"]
        body = {"dataset_id": dataset_id, "allow_rejects": True}
        made = [self.http.post("/v1/jobs", json=body | {"name": f"waiting-{number}"}) for number in range(count)]
        return [answer.raise_for_status().json()["id"] for answer in made]


@pytest.fixture
def waiting(browser: Browser, tmp_path: Path, valkey_url: str, sqlite_template: Path) -> Iterator[Waiting]:
    (tmp_path / "drtl.sqlite3").write_bytes(sqlite_template.read_bytes())
    settings = Settings(data_dir=tmp_path, broker_url=valkey_url)
    assert settings.blob_dir is not None
    engine = open_database(settings.database_url)
    rows = sessions(engine)
    ids = fill(rows, FolderStorage(settings.blob_dir), OPEN)
    with connected(create_app(settings)) as client:
        context = browser.new_context(base_url=str(client.base_url), viewport=DESKTOP)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        complaints = complaints_of(page)
        yield Waiting(client, page, rows, ids["job_id"])
        context.close()
    engine.dispose()
    assert complaints == []


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Five small pairs on disk: the folder of the clean images, and that of the distorted ones."""
    root = tmp_path_factory.mktemp("pairs")
    clean_dir, distorted_dir = root / "clean", root / "distorted"
    for folder in (clean_dir, distorted_dir):
        folder.mkdir()
    for name, clean, distorted in image_pairs(5):
        (clean_dir / f"{name}.png").write_bytes(clean)
        (distorted_dir / f"{name}.png").write_bytes(distorted)
    return clean_dir, distorted_dir


def serious_findings(page: Page) -> list[str]:
    """What axe finds serious or critical, each with the place where it is."""
    # Of what passes only counts are wanted: describing each element that does takes longer than the check.
    violations = Axe().run(page, options={"resultTypes": ["violations"]})["violations"]
    return [
        f"{finding['id']}: {node['html'][:160]}"
        for finding in violations
        if finding["impact"] in {"serious", "critical"}
        for node in finding["nodes"]
    ]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def screenshots_wanted() -> Path | None:
    """Where a person wants pictures of every state; they are no part of the tests."""
    folder = os.environ.get("SCREENSHOTS")
    return Path(folder) if folder else None

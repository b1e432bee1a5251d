"""A job that waits for a worker, seen by a browser: its place in the queue as the queue moves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.owners import OPEN
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected
from tests.app.possessions import fill
from tests.web.conftest import DESKTOP, PATIENCE_MS

TWO_LOOKS_MS = 7000


@dataclass(frozen=True)
class Waiting:
    """A service without workers, whose jobs wait for ever, and a page of it."""

    http: httpx.Client
    page: Page
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
    ids = fill(sessions(engine), FolderStorage(settings.blob_dir), OPEN)
    engine.dispose()
    with connected(create_app(settings)) as client:
        context = browser.new_context(base_url=str(client.base_url), viewport=DESKTOP)
        context.set_default_timeout(PATIENCE_MS)
        yield Waiting(client, context.new_page(), ids["job_id"])
        context.close()


def reads_of(page: Page, job: str) -> list[str]:
    """Fills with what the page asks for each time it reads the job's row."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith(f"/v1/jobs/{job}") else None)
    return asked


def test_the_place_of_a_waiting_job_changes_as_the_queue_moves(waiting: Waiting) -> None:
    first, _, last = waiting.queue(3)
    waiting.page.goto(f"/#/jobs/{last}")
    expect(waiting.page.get_by_text("at about place 3 of the queue")).to_be_visible()
    waiting.http.post(f"/v1/jobs/{first}/cancel").raise_for_status()
    expect(waiting.page.get_by_text("at about place 2 of the queue")).to_be_visible()
    waiting.page.get_by_role("button", name="Cancel the training").click()
    expect(waiting.page.get_by_role("heading", name="The training was cancelled")).to_be_visible()
    waiting.page.wait_for_timeout(1000)  # In which its last event comes, at which the row is read.
    reads = reads_of(waiting.page, last)
    waiting.page.wait_for_timeout(TWO_LOOKS_MS)
    assert reads == []


def test_a_job_that_does_not_wait_is_read_at_its_events_only(waiting: Waiting) -> None:
    reads = reads_of(waiting.page, waiting.running)
    waiting.page.goto(f"/#/jobs/{waiting.running}")
    expect(waiting.page.get_by_role("progressbar", name="Progress of the training")).to_be_visible()
    waiting.page.wait_for_timeout(TWO_LOOKS_MS)
    assert len(reads) == 2  # On arrival, and at its event "started".

"""A job that waits for a worker, seen by a browser: its place in the queue as the queue moves."""

from playwright.sync_api import Page, expect

from tests.web.conftest import Waiting

TWO_LOOKS_MS = 7000


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

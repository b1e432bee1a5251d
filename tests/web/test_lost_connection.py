"""A connection that is lost for a while: what was there stays, what is wrong is said, and it goes on afterwards."""

from playwright.sync_api import Route, expect

from app.core import jobs
from app.core.owners import OPEN, look_as
from tests.web.conftest import Waiting

TWO_LOOKS_MS = 7000


def test_the_list_of_jobs_outlasts_a_look_that_fails(waiting: Waiting) -> None:
    page = waiting.page
    page.goto("/#/jobs")
    row = page.get_by_role("link", name="scanner")
    expect(row).to_be_visible()
    page.route("**/v1/jobs?*", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    expect(row).to_be_visible()
    page.unroute("**/v1/jobs?*")
    waiting.queue(1)
    expect(page.get_by_role("link", name="waiting-0")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_slow_answer_is_waited_for_and_not_asked_for_again(waiting: Waiting) -> None:
    page = waiting.page
    page.goto("/#/jobs")
    expect(page.get_by_role("link", name="scanner")).to_be_visible()
    held: list[Route] = []
    with page.expect_request("**/v1/jobs?*"):
        page.route("**/v1/jobs?*", lambda route: held.append(route))  # noqa: PLW0108 - Playwright writes on it
    waiting.queue(1)
    page.wait_for_timeout(TWO_LOOKS_MS)
    assert len(held) == 1
    held[0].continue_()
    expect(page.get_by_role("link", name="waiting-0")).to_be_visible()


def test_the_end_of_a_job_is_read_until_it_is_known_and_told_to_screen_readers(waiting: Waiting) -> None:
    page = waiting.page
    page.goto(f"/#/jobs/{waiting.running}")
    page.get_by_role("button", name="Cancel the training").click()
    expect(page.get_by_role("button", name="Stopping")).to_be_visible()
    told = page.locator("main > [role=status].unseen")
    expect(told).to_have_text("")
    row = f"**/v1/jobs/{waiting.running}"
    page.route(row, lambda route: route.abort())
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        assert jobs.force_cancelled(session, waiting.running)
    lost = page.get_by_text("The connection to the service is lost.")
    expect(lost).to_be_visible()
    page.unroute(row)
    expect(page.get_by_role("heading", name="The training was cancelled")).to_be_visible()
    expect(lost).to_have_count(0)
    expect(told).to_have_text("The training was cancelled.")

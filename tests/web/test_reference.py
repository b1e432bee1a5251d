"""The page at `/docs` in a real browser: it shows and tries the service's calls, and asks nobody else."""

import re

from playwright.sync_api import expect

from tests.web.conftest import Visit


def test_every_call_can_be_read_and_tried_and_nothing_is_asked_of_another_host(visit: Visit) -> None:
    """`visit` fails where the page's own policy bars something that it wants."""
    page = visit("/docs")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.get_by_role("heading", name=re.compile("^DRTL"), level=1)).to_be_visible()
    expect(page.locator(".opblock").filter(has_text="/v1/models/{model}/super-resolve").first).to_be_visible()
    health = page.locator(".opblock").filter(has_text="/healthz").first
    health.get_by_role("button").first.click()
    health.get_by_role("button", name="Try it out").click()
    health.get_by_role("button", name="Execute").click()
    expect(health.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    here = page.evaluate("location.origin")
    assert len(asked) > 4
    assert all(url.startswith((here, "blob:", "data:")) for url in asked)

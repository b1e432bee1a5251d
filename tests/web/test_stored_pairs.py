"""A training on pairs that the service has already: from a job that came to nothing, without choosing files again."""

import re

import pytest
from playwright.sync_api import expect

from app.core.database import open_database, sessions
from app.core.tables import Job
from tests.images import image_pairs
from tests.servers import RunningService, eventually
from tests.web.conftest import Folders, Visit
from tests.web.test_main_job import give_pairs

PAIRS = 4


@pytest.fixture
def stored(service: RunningService) -> str:
    """A dataset that no job has used."""
    files = [
        (side, (f"{name}.png", image))
        for name, clean, distorted in image_pairs(PAIRS)
        for side, image in (("clean", clean), ("distorted", distorted))
    ]
    return str(service.http.post("/v1/datasets", files=files).raise_for_status().json()["id"])


def failed_job(service: RunningService, dataset_id: str, code: str) -> str:
    """As a worker leaves it."""
    engine = open_database(f"sqlite:///{service.data_dir / 'drtl.sqlite3'}")
    with sessions(engine).begin() as session:
        job = Job(name="failed", dataset_id=dataset_id, options={"name": "failed"}, state="failed", error_code=code)
        session.add(job)
        session.flush()
        job_id = job.id
    engine.dispose()
    return job_id


def test_a_job_that_failed_leads_to_a_new_one_on_its_pairs_by_keyboard_alone(
    visit: Visit, service: RunningService, stored: str
) -> None:
    page = visit(f"/#/jobs/{failed_job(service, stored, 'out-of-memory')}")
    expect(page.get_by_text("Your pairs are kept for a new try.")).to_be_visible()
    page.get_by_role("link", name="Start again with these pairs").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("heading", name=f"{PAIRS} pairs checked")).to_be_visible()
    report = service.http.get(f"/v1/datasets/{stored}").json()["pairs"]
    rows = page.get_by_role("list", name="Pairs").locator("> li")
    expect(rows).to_have_count(PAIRS)
    for row, pair in zip(rows.all(), report, strict=True):
        expect(row).to_contain_text(pair["name"])
        expect(row).to_contain_text(f"{pair['psnr_db']:.2f} dB")
        expect(row).to_contain_text(pair["verdict"])
    shown = "[...document.querySelectorAll('.thumb img')].filter((image) => image.naturalWidth > 0).length"
    eventually(lambda: page.evaluate(shown) == 2 * PAIRS, what="both images of every pair")
    expect(page.get_by_text(re.compile("about .* on two CPU cores|as .* here took")).first).to_be_visible()

    page.get_by_label("Name of the model").fill("on-stored-pairs")
    page.get_by_text("Further options").press("Enter")
    page.get_by_label("Finetune steps").fill("2")
    page.get_by_role("button", name="Start training").press("Enter")
    page.wait_for_url("**/#/jobs/job_*")
    job = service.job(page.url.rsplit("/", 1)[1])
    assert (job["dataset_id"], job["name"], job["options"]["finetune_steps"]) == (stored, "on-stored-pairs", 2)
    service.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    page.get_by_role("link", name="Start another with these pairs").click()
    expect(page.get_by_role("heading", name=f"{PAIRS} pairs checked")).to_be_visible()
    assert page.url.endswith(f"/#/?dataset={stored}")


def test_a_job_with_a_bad_pair_leads_to_choosing_pairs(visit: Visit, service: RunningService, stored: str) -> None:
    page = visit(f"/#/jobs/{failed_job(service, stored, 'bad-input')}")
    page.get_by_role("link", name="Start again").click()
    expect(page.get_by_role("group", name="Clean images")).to_be_visible()


def test_other_pairs_can_be_chosen_instead(visit: Visit, stored: str) -> None:
    page = visit(f"/#/?dataset={stored}")
    page.get_by_role("link", name="Choose other pairs").press("Enter")
    expect(page.get_by_role("heading", name="Teach it how your device")).to_be_focused()
    expect(page.get_by_role("group", name="Clean images")).to_be_visible()


@pytest.mark.parametrize("name", ["ds_00", "nonsense"])
def test_pairs_that_are_gone_are_said_to_be_gone(visit: Visit, name: str) -> None:
    page = visit(f"/#/?dataset={name}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("These pairs are gone")
    expect(alert).to_contain_text(re.compile(f"There is no.*{name}"))
    expect(page.get_by_role("button", name="Start training")).to_have_count(0)
    alert.get_by_role("link", name="Choose pairs").click()
    expect(page.get_by_role("group", name="Clean images")).to_be_visible()


def test_a_reload_or_a_look_at_another_page_loses_no_pairs_that_were_looked_at(visit: Visit, folders: Folders) -> None:
    page = visit()
    give_pairs(page, folders)
    checked = page.get_by_role("heading", name="5 pairs checked")
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="Jobs")).to_be_visible()
    page.go_back()
    expect(checked).to_be_visible()
    page.reload()
    expect(checked).to_be_visible()

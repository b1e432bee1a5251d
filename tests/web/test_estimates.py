"""How long a training will take, said before it starts: by the jobs that were done here, as far as they tell."""

from datetime import timedelta
from typing import Any

from playwright.sync_api import expect

from app.core.owners import OPEN, look_as
from app.core.tables import Job, utc_now
from tests.web.conftest import Waiting
from tests.web.test_options import open_form

QUICK_S = 130  # On the two CPU cores that the page's guesses were measured on.


def done(waiting: Waiting, seconds: float, attempt: int = 1, **options: Any) -> None:
    """A job that succeeded in so many seconds."""
    dataset_id = waiting.http.get("/v1/datasets").json()["items"][0]["id"]
    ended = utc_now()
    with waiting.rows.begin() as session:
        look_as(session, OPEN)
        row = Job(name="done", dataset_id=dataset_id, options={"name": "done", **options}, state="succeeded")
        row.started_at, row.finished_at, row.attempt = ended - timedelta(seconds=seconds), ended, attempt
        session.add(row)


def told(waiting: Waiting) -> dict[str, str]:
    """What the form says of each preset's time."""
    page = open_form(waiting)
    choices = page.get_by_role("radio")
    expect(choices).to_have_count(4)
    expect(page.locator(".choice").first).to_contain_text("about")
    names = [choice.get_attribute("value") or "" for choice in choices.all()]
    return dict(zip(names, page.locator(".choice span > .soft").all_inner_texts()[::2], strict=True))


def test_before_any_job_the_times_are_rough_and_those_of_two_cores(waiting: Waiting) -> None:
    rough = "on two CPU cores, a rough estimate"
    assert told(waiting) == {
        "draft": f"about 45 seconds {rough}",
        "quick": f"about 2 minutes {rough}",
        "standard": f"about 87 minutes {rough}",
        "paper": f"about 31 hours {rough}",
    }


def test_a_preset_takes_what_its_jobs_took_and_the_others_follow_this_machines_pace(waiting: Waiting) -> None:
    for times in (2, 4, 30):  # Of which the median counts.
        done(waiting, times * QUICK_S)
    rough = "by this machine's pace, a rough estimate"
    assert told(waiting) == {
        "draft": f"about 3 minutes {rough}",
        "quick": "about 9 minutes, as 3 jobs here took",
        "standard": f"about 6 hours {rough}",
        "paper": f"about 5 days {rough}",
    }


def test_a_single_job_is_told_as_one(waiting: Waiting) -> None:
    done(waiting, 20, preset="draft")
    assert told(waiting)["draft"] == "about 20 seconds, as a job here took"


def test_jobs_that_were_not_whole_or_of_other_schemes_tell_nothing(waiting: Waiting) -> None:
    done(waiting, 9 * QUICK_S, finetune_steps=7)
    done(waiting, 9 * QUICK_S, transfer_steps=7)
    done(waiting, 9 * QUICK_S, attempt=2)
    done(waiting, 9 * QUICK_S, scheme="baseline")
    assert told(waiting)["quick"] == "about 2 minutes on two CPU cores, a rough estimate"

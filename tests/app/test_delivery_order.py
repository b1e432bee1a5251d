"""Whatever is claimed, lost, refused or accepted, and when: each job's messages arrive, all of them and in order."""

import itertools
import shutil
from collections import defaultdict
from pathlib import Path

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from app.core import deliveries, jobs, webhooks
from app.core.database import open_database, sessions
from app.core.deliveries import PER_WEBHOOK, Answer, Claim
from app.core.settings import Settings
from app.core.tables import Dataset, Job, WebhookDelivery

SETTINGS = Settings(webhook_key="k" * 40, webhook_retry_s=1e-6)
KINDS = ("started", "graph", "requeued")
HOOKS, JOBS, AT_FIRST = 2, 2, 3
Step = tuple[str, int]

steps = st.lists(
    st.tuples(st.sampled_from(["event", "claim", "claim and die", "accept", "refuse"]), st.integers(0, 5)), max_size=30
)
databases = itertools.count()


class World:
    """One owner, two webhooks, two jobs of which some things are to be told; what was claimed and what has arrived."""

    def __init__(self, rows: sessionmaker[Session]) -> None:
        self.rows = rows
        self.claimed: list[Claim] = []
        self.arrived: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        with rows.begin() as session:
            session.add(Dataset(id="ds_1", scale=1))
            self.jobs = [
                Job(id=f"job_{number}", name=f"n{number}", dataset_id="ds_1", options={}) for number in range(JOBS)
            ]
            session.add_all(self.jobs)
            for _ in range(HOOKS):
                webhooks.register(session, SETTINGS, "https://x.example/", list(webhooks.EVENT_OF_KIND.values()), "")
            for job in AT_FIRST * self.jobs:
                jobs.record(session, job.id, "started")

    def take(self, step: Step) -> None:
        match step:
            case "event", number:
                with self.rows.begin() as session:
                    jobs.record(session, self.jobs[number % JOBS].id, KINDS[number % 2])
            case "claim" | "claim and die" as how, number:
                with self.rows.begin() as session:
                    found = deliveries.claim(session, 60.0 if how == "claim" else -1.0, number)
                if how == "claim":
                    assert len(found) <= HOOKS * PER_WEBHOOK
                    self.claimed += found
            case "accept" | "refuse" as how, number if self.claimed:
                claim = self.claimed.pop(number % len(self.claimed))
                self.note(claim, Answer(0.0, status=200 if how == "accept" else 500))

    def note(self, claim: Claim, answer: Answer) -> None:
        with self.rows.begin() as session:
            state = deliveries.note(session, claim, answer, SETTINGS)
        if state == "delivered":
            with self.rows() as session:
                delivery = session.get_one(WebhookDelivery, claim.delivery_id)
            assert delivery.job_id is not None
            self.arrived[delivery.webhook_id, delivery.job_id].append(delivery.id)

    def settle(self) -> None:
        """Accept everything that is left."""
        for claim in self.claimed:
            self.note(claim, Answer(0.0, status=200))
        while True:
            with self.rows.begin() as session:
                session.execute(update(WebhookDelivery).where(WebhookDelivery.state == "pending").values(due_at=0.0))
                found = deliveries.claim(session, 60.0, 100)
            if not found:
                return
            for claim in found:
                self.note(claim, Answer(0.0, status=200))


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
def test_all_messages_arrive_and_each_jobs_in_order(taken: list[Step], sqlite_template: Path, tmp_path: Path) -> None:
    path = shutil.copy(sqlite_template, tmp_path / f"{next(databases)}.sqlite3")
    engine = open_database(f"sqlite:///{path}")
    world = World(sessions(engine))
    for step in taken:
        world.take(step)
    world.settle()
    with world.rows() as session:
        written = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.sequence)).all()
    expected: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for delivery in written:
        assert delivery.job_id is not None
        expected[delivery.webhook_id, delivery.job_id].append(delivery.id)
    assert world.arrived == expected
    events = JOBS * AT_FIRST + sum(step[0] == "event" for step in taken)
    assert len(written) == HOOKS * events
    engine.dispose()

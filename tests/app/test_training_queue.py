"""Whose training is next: shares, priorities and places in the queue, on the real queries."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, insert, select, text, update
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from app.core import jobs, shares, training_queue
from app.core.jobs import Lease
from app.core.owners import View, ViewedSessions
from app.core.shares import AGEING_S, PRIORITIES, Priority, expected_work_s
from app.core.tables import Dataset, Job, Table, TrainingShare, utc_now
from ml.options import PRESETS

OWNERS = ("ada", "bea", "cleo")


@dataclass
class Queue:
    """A service's queue of trainings with workers that take and end jobs when they are told to."""

    engine: Engine
    leases: dict[str, Lease] = field(default_factory=dict)
    names: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.sessions = sessionmaker(self.engine, expire_on_commit=False)
        with self.sessions.begin() as session:
            session.add(Dataset(id="ds_0", scale=1, pairs=[]))

    def put(self, owner: str, priority: Priority = "normal", **options: object) -> str:
        with ViewedSessions(self.sessions, View(owner)).begin() as session:
            job = Job(name=f"m{next(self.names)}", dataset_id="ds_0", options=options)
            training_queue.put_in_line(session, job, priority)
            session.add(job)
        return job.id

    def take(self) -> Job | None:
        with self.sessions.begin() as session:
            lease = jobs.claim_next(session, "task", 60.0)
            if lease is None:
                return None
            self.leases[lease.job_id] = lease
            return session.get_one(Job, lease.job_id)

    def taken(self, many: int) -> list[str]:
        """The owners of the next jobs, each of which ends before the next is taken."""
        found = []
        for _ in range(many):
            job = self.take()
            assert job is not None
            found.append(job.owner)
            self.end(job.id)
        return found

    def end(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(progress=1.0))
            assert jobs.fail(session, self.leases.pop(job_id), "code", "message")

    def drop(self, job_id: str) -> None:
        """Fail before anything was done."""
        with self.sessions.begin() as session:
            assert jobs.fail(session, self.leases.pop(job_id), "code", "message")

    def give_back(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            jobs.release(session, self.leases.pop(job_id))

    def cancel(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            jobs.request_cancel(session, job_id)

    def turn(self, owner: str) -> float:
        with self.sessions() as session:
            return session.get_one(TrainingShare, owner).turn

    def position(self, job_id: str) -> int | None:
        with self.sessions() as session:
            return training_queue.position(session, session.get_one(Job, job_id))

    def waiting(self) -> list[str]:
        with self.sessions() as session:
            return list(session.scalars(select(Job.id).where(Job.state == "queued")))


def in_memory() -> Queue:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Table.metadata.create_all(engine)
    return Queue(engine)


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = in_memory()
    yield made
    made.engine.dispose()


def test_one_owners_hundred_jobs_do_not_starve_anothers_one(queue: Queue) -> None:
    for _ in range(100):
        queue.put("ada")
    queue.taken(3)
    queue.put("bea")
    assert "bea" in queue.taken(2)


def test_nobody_is_punished_for_using_workers_that_nobody_else_wanted(queue: Queue) -> None:
    for _ in range(20):
        queue.put("ada")
    queue.taken(10)
    for _ in range(10):
        queue.put("bea")
    assert Counter(queue.taken(10)) == {"ada": 5, "bea": 5}


def test_nobody_saves_up_turns_while_away(queue: Queue) -> None:
    queue.put("bea")
    queue.taken(1)
    for _ in range(20):
        queue.put("ada")
    queue.taken(10)
    for _ in range(10):
        queue.put("bea")
    assert Counter(queue.taken(10)) == {"ada": 5, "bea": 5}


def test_who_holds_all_workers_is_served_after_who_holds_none(queue: Queue) -> None:
    for _ in range(5):
        queue.put("ada")
    for _ in range(2):
        assert queue.take() is not None
    queue.put("bea", preset="paper")
    queue.put("ada", "high")
    served = queue.take()
    assert served is not None
    assert served.owner == "bea"


def test_shares_are_of_work_and_not_of_jobs(queue: Queue) -> None:
    for _ in range(3):
        queue.put("ada", scheme="baseline", finetune_steps=10_000)
    for _ in range(40):
        queue.put("bea", scheme="baseline", finetune_steps=1_000)
    served = queue.taken(22)
    one, tenth = (expected_work_s({"scheme": "baseline", "finetune_steps": steps}) for steps in (10_000, 1_000))
    assert abs(served.count("ada") * one - served.count("bea") * tenth) <= one


@pytest.mark.parametrize(("priority", "times"), [("high", 4.0), ("low", 0.25)])
def test_an_urgent_owner_gets_a_larger_share_and_the_other_a_smaller_one(
    queue: Queue, priority: Priority, times: float
) -> None:
    for _ in range(30):
        queue.put("ada", priority)
        queue.put("bea")
    served = Counter(queue.taken(25))
    assert served["ada"] / served["bea"] == pytest.approx(times, rel=0.1)


def test_an_open_service_serves_by_priority_and_then_by_age(queue: Queue) -> None:
    made = {name: queue.put("", name) for name in ("low", "normal", "high")} | {"later": queue.put("", "high")}
    assert [queue.position(job_id) for job_id in made.values()] == [4, 3, 1, 2]
    order = []
    while (job := queue.take()) is not None:
        order.append(job.id)
    assert order == [made["high"], made["later"], made["normal"], made["low"]]


def test_what_is_not_urgent_grows_old_enough(queue: Queue) -> None:
    low = queue.put("", "low")
    with queue.sessions.begin() as session:
        session.execute(update(Job).values(rank=Job.rank - AGEING_S - 1))
    queue.put("", "normal")
    job = queue.take()
    assert job is not None
    assert job.id == low


def test_a_job_that_lost_its_worker_is_next_and_is_not_charged_again(queue: Queue) -> None:
    first, _ = queue.put("ada"), queue.put("ada", "high")
    queue.put("bea")
    with queue.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == first).values(rank=0.0))
    job = queue.take()
    assert job is not None
    assert job.id == first
    turn = queue.turn("ada")
    queue.give_back(first)
    assert queue.position(first) == 1
    again = queue.take()
    assert again is not None
    assert (again.id, queue.turn("ada")) == (first, turn)


def test_a_cancelled_job_costs_its_owner_what_was_done_of_it(queue: Queue) -> None:
    queue.put("ada")
    before = queue.turn("ada")
    job = queue.take()
    assert job is not None
    assert queue.turn("ada") == before + job.charge_s
    with queue.sessions.begin() as session:
        session.execute(update(Job).values(progress=0.25))
    queue.cancel(job.id)
    with queue.sessions.begin() as session:
        assert jobs.confirm_cancelled(session, queue.leases[job.id])
    assert queue.turn("ada") == pytest.approx(before + 0.25 * job.charge_s)
    waiting = queue.put("ada")
    queue.cancel(waiting)
    assert queue.turn("ada") == pytest.approx(before + 0.25 * job.charge_s)


def test_jobs_of_a_release_that_knew_no_shares_are_served(queue: Queue) -> None:
    queue.put("ada")
    with queue.sessions.begin() as session:
        session.add(Job(owner="old", name="old", dataset_id="ds_0", options={}))
    assert sorted(queue.taken(2)) == ["ada", "old"]


def test_who_comes_in_beside_a_large_job_does_not_wait_for_it_when_it_ends_early(queue: Queue) -> None:
    large = queue.put("ada", scheme="baseline", finetune_steps=100_000)
    queue.take()
    for _ in range(20):
        queue.put("ada", scheme="baseline", finetune_steps=20)
    queue.put("bea", scheme="baseline", finetune_steps=20)
    queue.drop(large)
    assert "bea" in queue.taken(2)


def test_who_comes_in_while_all_that_is_left_is_a_large_job_does_not_wait_for_it_either(queue: Queue) -> None:
    large = queue.put("ada", scheme="baseline", finetune_steps=100_000)
    queue.take()
    queue.put("bea", scheme="baseline", finetune_steps=20)
    for _ in range(20):
        queue.put("ada", scheme="baseline", finetune_steps=20)
    queue.drop(large)
    assert "bea" in queue.taken(2)


def test_jobs_that_end_before_anything_is_done_cost_their_owner_nothing(queue: Queue) -> None:
    queue.put("bea", scheme="baseline", finetune_steps=2_000)
    queue.taken(1)
    queue.put("bea", scheme="baseline", finetune_steps=2_000)
    jobs_of_ada = [queue.put("ada", scheme="baseline", finetune_steps=20) for _ in range(3)]
    before = queue.turn("ada")
    for _ in jobs_of_ada:
        while (job := queue.take()) is not None and job.owner != "ada":
            pass
        assert job is not None
        queue.drop(job.id)
        assert queue.turn("ada") == before


# Properties


ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(OWNERS), st.sampled_from(PRIORITIES), st.sampled_from([20, 200, 2_000])),
    st.tuples(st.sampled_from(["take", "end", "drop", "give_back", "cancel"]), st.integers(0, 10)),
)


def carry_out(queue: Queue, action: tuple[object, ...]) -> None:
    """Do it, if it can be done; check what must hold of every claim."""
    match action:
        case ("put", str(owner), priority, steps):
            queue.put(owner, priority, scheme="baseline", finetune_steps=steps)  # type: ignore[arg-type]  # As in ACTIONS.
        case ("take", _):
            with queue.sessions() as session:
                before = {each.owner: each.held for each in training_queue.in_line(session)}
            job = queue.take()
            assert (job is None) == (not before), "a worker idles exactly where nothing waits"
            assert job is None or before[job.owner] == min(before.values()), "who holds less comes first"
        case ("cancel", int(index)):
            if waiting := queue.waiting():
                queue.cancel(waiting[index % len(waiting)])
        case (str(what), int(index)):
            if running := sorted(queue.leases):
                {"end": queue.end, "drop": queue.drop, "give_back": queue.give_back}[what](
                    running[index % len(running)]
                )


@given(st.lists(ACTIONS, max_size=40))
@settings(max_examples=20, deadline=None)
def test_workers_never_idle_while_anything_waits_and_who_holds_less_comes_first(
    actions: list[tuple[object, ...]],
) -> None:
    queue = in_memory()
    for action in actions:
        carry_out(queue, action)
    queue.engine.dispose()


@given(st.lists(ACTIONS, max_size=20), st.sampled_from(PRIORITIES))
@settings(max_examples=12, deadline=None)
def test_a_job_is_begun_however_much_others_send(actions: list[tuple[object, ...]], priority: Priority) -> None:
    """Rivals send an urgent job for each that is begun. Each goes first only until its turn has come level."""
    queue = in_memory()
    for action in actions:
        carry_out(queue, action)
    for job_id in list(queue.leases):
        queue.end(job_id)
    mine = queue.put("mine", priority)
    rivals = [queue.turn(owner) for owner in OWNERS if any(action[1] == owner for action in actions)]
    charge_s = shares.charge_s(expected_work_s({"scheme": "baseline", "finetune_steps": 20}), "high")
    # What waits already, what brings each rival level, and once more for each, which may have come level before.
    most = len(queue.waiting()) + sum(1 + max(0.0, queue.turn("mine") - turn) / charge_s for turn in rivals) + 3
    for begun in count():
        assert begun <= most
        for owner in OWNERS:
            queue.put(owner, "high", scheme="baseline", finetune_steps=20)
        job = queue.take()
        assert job is not None
        if job.id == mine:
            break
        queue.end(job.id)
    queue.engine.dispose()


@given(st.integers(1, 5), st.integers(0, 8))
@settings(max_examples=12, deadline=None)
def test_with_one_worker_a_newcomer_waits_for_no_more_than_a_job_of_each_other(owners: int, served: int) -> None:
    queue = in_memory()
    for owner in range(owners):
        for _ in range(served + 3):
            queue.put(f"owner-{owner}")
    queue.taken(served)
    queue.put("newcomer")
    before = queue.taken(owners + 1)
    assert "newcomer" in before
    assert max(Counter(before).values()) == 1
    queue.engine.dispose()


@given(st.lists(st.tuples(st.sampled_from(OWNERS), st.sampled_from(PRIORITIES)), min_size=1, max_size=25))
@settings(max_examples=12, deadline=None)
def test_the_place_of_an_only_owner_is_exact_and_that_of_several_no_further_than_the_end(
    sent: list[tuple[str, Priority]],
) -> None:
    queue = in_memory()
    made = [queue.put(owner, priority) for owner, priority in sent]
    places = {job_id: queue.position(job_id) for job_id in made}
    assert all(place is not None and 1 <= place <= len(made) for place in places.values())
    if len({owner for owner, _ in sent}) == 1:
        for place in range(1, len(made) + 1):
            job = queue.take()
            assert job is not None
            assert places[job.id] == place
    queue.engine.dispose()


# On both databases


def test_a_job_that_came_back_has_waited_since_then(engine: Engine) -> None:
    queue = Queue(engine)
    assert since(queue) is None
    old, new = queue.put("ada"), queue.put("ada")
    with queue.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == old).values(created_at=utc_now() - timedelta(hours=2)))
    assert utc_now() - since(queue) > timedelta(hours=1)
    queue.take()
    queue.give_back(old)
    assert utc_now() - since(queue) < timedelta(minutes=1)
    queue.take()
    assert queue.waiting() == [new]
    with queue.sessions() as session:
        assert since(queue) == session.get_one(Job, new).created_at


def since(queue: Queue) -> Any:
    with queue.sessions() as session:
        return training_queue.waiting_since(session)


def test_claims_at_once_are_each_anothers_and_share_the_workers(engine: Engine) -> None:
    queue = Queue(engine)
    for _ in range(24):
        queue.put("ada")
    for owner in ("bea", "cleo", "dora"):
        for _ in range(4):
            queue.put(owner)
    start = threading.Barrier(8)

    def work(_: int) -> Job | None:
        start.wait()
        return queue.take()

    with ThreadPoolExecutor(8) as pool:
        taken = [job for job in pool.map(work, range(8)) if job is not None]
    assert len({job.id for job in taken}) == 8
    assert Counter(job.owner for job in taken) == {"ada": 2, "bea": 2, "cleo": 2, "dora": 2}


def test_jobs_queued_at_once_give_their_owner_one_turn(engine: Engine) -> None:
    queue = Queue(engine)
    start = threading.Barrier(6)

    def put(_: int) -> str:
        start.wait()
        return queue.put("ada")

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(put, range(6)))
    with queue.sessions() as session:
        assert [share.owner for share in session.scalars(select(TrainingShare))] == ["ada"]
    assert sorted(queue.waiting()) == sorted(made)


def test_the_jobs_that_wait_are_read_from_their_own_index_alone(engine: Engine) -> None:
    queue = Queue(engine)
    with queue.sessions.begin() as session:
        rows = [
            {"id": f"job_{n:05}", "name": f"n{n}", "dataset_id": "ds_0", "options": {}, "state": state}
            for n, state in enumerate(["queued"] * 500 + ["succeeded"] * 2_000)
        ]
        session.execute(insert(Job), rows)
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE jobs"))
    statement = training_queue._waiting_by_owner().compile(engine, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        plan = "\n".join(str(row) for row in connection.execute(text(f"{explain} {statement}")))
    alone = (
        "USING COVERING INDEX ix_jobs_waiting"
        if engine.dialect.name == "sqlite"
        else "Index Only Scan using ix_jobs_waiting"
    )
    assert alone in plan, plan


# What is expected of a job


def test_the_schedules_that_work_is_estimated_by_are_those_of_the_method() -> None:
    for preset, schedules in PRESETS.items():
        assert shares.TRANSFER_STEPS[preset] == schedules.transfer.steps
        assert shares.FINETUNE_STEPS[preset] == schedules.finetune.steps
        assert shares.TRANSFER_BATCH[preset] == schedules.transfer.batch == schedules.finetune.batch


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"preset": "draft"}, {"preset": "quick"}),
        ({"preset": "quick"}, {"preset": "standard"}),
        ({"preset": "standard"}, {"preset": "paper"}),
        ({"scheme": "baseline"}, {"scheme": "auto"}),
        ({"backbone": "vdsr"}, {"backbone": "rcan"}),
        ({"unshuffle": 4}, {"unshuffle": None}),
        ({"unshuffle": 2}, {"unshuffle": 1}),
        ({"finetune_steps": 1}, {"finetune_steps": 2}),
        ({"transfer_steps": 0}, {"transfer_steps": 1}),
    ],
)
def test_more_to_do_is_expected_to_take_longer(less: dict[str, object], more: dict[str, object]) -> None:
    assert 0 < expected_work_s(less) < expected_work_s(more)

"""Faults that kill nobody: messages that come twice and in any order, clocks that jump. The same judgement as ever."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, select

from app.core.database import read_sessions
from app.core.tables import Job
from benchmarks.chaos import audit, clock, invariants, storm
from benchmarks.chaos.customers import Restorations, orders, pair_files, restore_meanwhile, serve_orders
from benchmarks.chaos.doubling_broker import instead_of_the_real_one, messages_added
from benchmarks.chaos.installation import Installation, Mode, installation
from benchmarks.chaos.invariants import Verdict
from benchmarks.chaos.storm import Say
from tests.servers import eventually

HOUR_S = 3600
Meanwhile = Callable[[Installation, Engine], None]


def duplicates(mode: Mode, folder: Path, say: Say, jobs: int = 9) -> list[Verdict]:
    """Every message comes twice, some a third time, in no order; one worker's child is killed, and no other notices."""

    def kill_one(service: Installation, _engine: Engine) -> None:
        say("one child of three is killed")
        os.kill(eventually(lambda: service.victims("training child"), what="a child")[0], signal.SIGKILL)

    verdicts, attempts = undramatic(mode, folder, say, jobs, kill_one, **instead_of_the_real_one(folder))
    added = messages_added(folder)
    surplus = sum(attempt - 1 for attempt in attempts.values())
    return [
        *verdicts,
        Verdict(
            "no job loses a worker over a message that comes again",
            surplus <= 1 and added > jobs,
            {"messages_added": added, "attempts_beyond_the_first": surplus, "children_killed": 1},
        ),
    ]


def clocks(mode: Mode, folder: Path, say: Say, jobs: int = 9) -> list[Verdict]:
    """Clocks jump by an hour, to and fro: in the cluster those of single workers, embedded that of the machine."""
    if clock.library() is None:
        return [Verdict("clocks may jump", held=False, evidence={"not_tried": "the package libfaketime is missing"})]
    data_dir = folder / "data"
    if mode == "cluster":
        environment = {clock.ASKED: "1"}
        jumps = [
            {"worker-training-1": HOUR_S, "worker-inference-1": HOUR_S, "beat": -HOUR_S},
            {"worker-training-1": -HOUR_S, "worker-inference-1": -HOUR_S, "beat": HOUR_S},
            {"worker-training-1": 0, "worker-inference-1": 0, "beat": 0},
        ]
    else:
        data_dir.mkdir(parents=True)
        environment = clock.skewed(data_dir, "machine")
        jumps = [{"machine": HOUR_S}, {"machine": 0}, {"machine": -HOUR_S}, {"machine": 0}]

    def jump(service: Installation, _engine: Engine) -> None:
        for shifts in jumps:
            say(f"clocks: {shifts}")
            for name, by_s in shifts.items():
                clock.shift(data_dir, name, by_s)
            # Now rounds of the reconciler are needed, or nothing goes on.
            with service.broker() as broker:
                broker.flushall()
            time.sleep(6.0)

    verdicts, attempts = undramatic(mode, folder, say, jobs, jump, **environment)
    surplus = sum(attempt - 1 for attempt in attempts.values())
    if mode == "embedded":
        # The leases are by the machine's clock, so an hour ahead all have run out; what was at work begins again.
        return verdicts
    return [
        *verdicts,
        Verdict("no job loses its worker over a worker's clock", surplus == 0, {"attempts_beyond_the_first": surplus}),
    ]


def undramatic(
    mode: Mode, folder: Path, say: Say, jobs: int, meanwhile: Meanwhile, **environment: str
) -> tuple[list[Verdict], dict[str, int]]:
    """Jobs and images while something happens; the usual judgement, and the attempts that each job took."""
    pairs = pair_files(folder / "pairs")
    with installation(mode, folder, environment) as service:
        engine = invariants.opened(service)
        undisturbed = storm.calm(service, pairs)
        audit.install(engine)
        placed = orders(seed=0, count=jobs, within_s=3.0, cancelled=1)
        told, stop, no_more = Restorations(), threading.Event(), threading.Event()
        threads = serve_orders(service.url, pairs, placed, stop)
        images = restore_meanwhile(service.url, undisturbed.image, undisturbed.by_model(), 0.5, no_more, told)
        try:
            eventually(lambda: len(service.http.get("/v1/jobs?state=running").json()["items"]) > 1, what="work")
            meanwhile(service, engine)
            storm.wait_for_peace(engine, threads)
        finally:
            stop.set()
            no_more.set()
        images.join()
        verdicts = storm.judge(service, engine, placed, undisturbed, told, [])
        with read_sessions(engine)() as session:
            rows = session.scalars(select(Job).where(Job.name.like("storm-%"), Job.state == "succeeded"))
            attempts = {job.name: job.attempt for job in rows}
        engine.dispose()
    return verdicts, attempts

"""The storm: jobs and images over HTTP while process after process is killed; then peace, and the judgement."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from redis.exceptions import RedisError
from safetensors.numpy import load
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from benchmarks.chaos import audit, invariants, recovery, schedule
from benchmarks.chaos.customers import (
    VARIANTS,
    Order,
    Restorations,
    Variant,
    orders,
    pair_files,
    restore,
    restore_meanwhile,
    serve_orders,
)
from benchmarks.chaos.installation import LEASE_S, Installation, Mode, installation
from benchmarks.chaos.invariants import Tensors, Verdict
from benchmarks.chaos.recovery import Prober, Struck
from benchmarks.chaos.schedule import Fault
from drtl_client import Client
from tests.images import image_pairs
from tests.servers import is_alive

Say = Callable[[str], None]
QUIESCE_S = 300.0
# A fault whose victim was killed just before waits so long for the next of its kind; the later faults come later then.
VICTIM_WITHIN_S = 10.0


@dataclass(frozen=True)
class Plan:
    """How large a storm is."""

    mode: Mode
    seed: int = 0
    seconds: float = 300.0
    jobs: int = 60
    cancelled: int = 8
    every_s: float = 4.0
    training_workers: int = 3
    variants: int = len(VARIANTS)

    def faults(self) -> list[Fault]:
        kinds = schedule.EVERYWHERE + (schedule.OF_THE_CLUSTER if self.mode == "cluster" else ())
        return schedule.draw(self.seed, self.seconds, self.every_s, kinds)


@dataclass(frozen=True)
class Undisturbed:
    """What the service makes of each variant while nothing happens to it."""

    weights: dict[int, Tensors]
    restored: dict[int, bytes]
    image: bytes

    def by_model(self) -> dict[str, bytes]:
        return {f"calm-{seed}": restored for seed, restored in self.restored.items()}


def calm(service: Installation, pairs: Path, variants: Sequence[Variant] = VARIANTS) -> Undisturbed:
    """Train every variant once, and restore an image with each."""
    weights, restored = {}, {}
    image = image_pairs(1, 120)[0][2]
    with Client(service.url) as client:
        begun = [
            (variant, client.jobs.create(pairs, name=f"calm-{variant.seed}", **variant.options()))
            for variant in variants
        ]
        for variant, job in begun:
            ended = client.jobs.wait(job, timeout_s=180.0)
            assert ended.succeeded, ended.error
            path = f"/v1/models/calm-{variant.seed}/versions/1/weights"
            weights[variant.seed] = load(service.http.get(path).raise_for_status().content)
            restored[variant.seed] = restore(service.http, f"calm-{variant.seed}@1", image)
    return Undisturbed(weights, restored, image)


def rage(service: Installation, faults: list[Fault], say: Say) -> tuple[list[Struck], list[float]]:
    """Do every fault at its time. Returns those that were done, and when frozen processes were thawed."""
    began = time.monotonic()
    struck: list[Struck] = []
    thaw: dict[int, float] = {}
    thawed: list[float] = []

    def thaw_due(now: float) -> None:
        for pid in [pid for pid, at in thaw.items() if at <= now]:
            del thaw[pid]
            if is_alive(pid):
                thawed.append(time.time())
                os.kill(pid, signal.SIGCONT)

    for fault in faults:
        while (now := time.monotonic()) - began < fault.at_s:
            thaw_due(now)
            time.sleep(0.02)
        done = strike(service, fault)
        while not done.hit and time.monotonic() < now + VICTIM_WITHIN_S:
            thaw_due(time.monotonic())
            time.sleep(0.05)
            done = strike(service, fault)
        struck.append(done)
        say(f"{fault.at_s:6.1f} s  {fault.kind}" + ("" if done.hit else ": none there"))
        if fault.kind == "frozen training" and done.pid is not None:
            thaw[done.pid] = time.monotonic() + 1.5 * LEASE_S
    while thaw:
        thaw_due(time.monotonic())
        time.sleep(0.02)
    return struck, thawed


def strike(service: Installation, fault: Fault) -> Struck:
    """Do it now. A process that has just ended by itself is not there to be killed."""
    if fault.kind == "FLUSHALL":
        with suppress(RedisError), service.broker() as broker:  # It may have been killed just before.
            broker.flushall()
        return Struck(time.time(), fault.kind, None)
    victims = [pid for pid in service.victims(fault.kind) if is_alive(pid)]
    if not victims:
        return Struck(time.time(), fault.kind, None)
    pid = victims[int(fault.choice * len(victims))]
    at = time.time()
    try:
        os.kill(pid, signal.SIGSTOP if fault.kind == "frozen training" else signal.SIGKILL)
    except ProcessLookupError:
        return Struck(at, fault.kind, None)
    return Struck(at, fault.kind, pid)


def wait_for_peace(engine: Engine, threads: list[threading.Thread]) -> float:
    """Until every order has been answered and every job has ended; how long that took."""
    began = time.monotonic()
    for thread in threads:
        thread.join(QUIESCE_S)
    while time.monotonic() - began < QUIESCE_S:
        try:
            if invariants.ended(engine):
                break
        except DBAPIError:
            pass  # The database is on its way up.
        time.sleep(0.2)
    return time.monotonic() - began


def run(plan: Plan, folder: Path, say: Say, **environment: str) -> dict[str, Any]:
    """The whole storm. Returns its report; `held` in it is whether every invariant did."""
    faults = plan.faults()
    pairs = pair_files(folder / "pairs")
    with installation(plan.mode, folder, environment, training=plan.training_workers) as service:
        engine = invariants.opened(service)
        say("calm: every variant once, undisturbed")
        undisturbed = calm(service, pairs, VARIANTS[: plan.variants])
        audit.install(engine)
        say(f"storm: {plan.jobs} jobs, {len(faults)} faults in {plan.seconds:g} s, seed {plan.seed}")
        placed = orders(plan.seed, plan.jobs, 0.6 * plan.seconds, plan.cancelled, VARIANTS[: plan.variants])
        restorations, stop, no_more_images = Restorations(), threading.Event(), threading.Event()
        prober = Prober(service.url)
        began = time.monotonic()
        try:
            threads = serve_orders(service.url, pairs, placed, stop)
            images = restore_meanwhile(
                service.url, undisturbed.image, undisturbed.by_model(), 1.0, no_more_images, restorations
            )
            struck, thawed = rage(service, faults, say)
            say("peace: waiting for the last jobs")
            peace_s = wait_for_peace(engine, threads)
        finally:
            stop.set()
            no_more_images.set()
            prober.stop()
        images.join()
        took_s = time.monotonic() - began
        verdicts = judge(service, engine, placed, undisturbed, restorations, thawed)
        leases = audit.tenures(audit.writes(engine))
        engine.dispose()
        unforeseen = invariants.tracebacks(service.data_dir / "logs")
    return {
        "mode": plan.mode,
        "plan": asdict(plan),
        "schedule": [asdict(fault) for fault in faults],
        "faults_done": {
            kind: sum(fault.kind == kind and fault.hit for fault in struck)
            for kind in sorted({fault.kind for fault in faults})
        },
        "seconds": round(took_s, 1),
        "seconds_to_peace": round(peace_s, 1),
        "invariants": [asdict(verdict) for verdict in verdicts],
        "until_ready": recovery.summary(recovery.until_ready(struck, prober.seen)),
        "until_the_next_step": recovery.summary(recovery.until_the_next_step(struck, leases)),
        "tracebacks": unforeseen,
        "held": all(verdict.held for verdict in verdicts),
    }


def judge(
    service: Installation,
    engine: Engine,
    placed: list[Order],
    undisturbed: Undisturbed,
    restorations: Restorations,
    thawed: list[float],
) -> list[Verdict]:
    with httpx.Client(base_url=service.url, timeout=60.0) as http:
        return [
            *invariants.jobs_ended_once(engine, placed),
            *invariants.models_are_whole(engine, http, undisturbed.weights, undisturbed.image, undisturbed.restored),
            *invariants.one_worker_at_a_time(engine, service, thawed),
            invariants.images_are_right(restorations),
            *invariants.nothing_is_left_over(service),
        ]

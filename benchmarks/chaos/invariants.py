"""What must be true when the storm is over, each with the evidence that it was judged by."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import load
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.core import repository
from app.core.database import open_database, read_sessions
from app.core.folder_storage import FolderStorage
from app.core.tables import ENDED, Job, JobEvent, ModelVersion
from benchmarks.chaos import audit
from benchmarks.chaos.customers import Order, Restorations, restore
from benchmarks.chaos.installation import LEASE_S, Installation
from worker import reconciler
from worker.service import Service

Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Verdict:
    """One invariant: whether it held, and what shows it."""

    invariant: str
    held: bool
    evidence: dict[str, Any]


def jobs_ended_once(engine: Engine, orders: list[Order]) -> Iterator[Verdict]:
    """Each order made exactly one job, which ended exactly once, rightly."""
    with read_sessions(engine)() as session:
        jobs = Counter(session.scalars(select(Job.name).where(Job.name.like("storm-%"))))
        ids = {order.name: order.job_id for order in orders}
        rows = {job.name: job for job in session.scalars(select(Job).where(Job.name.like("storm-%")))}
        ends = Counter(session.scalars(select(JobEvent.job_id).where(JobEvent.kind.in_(ENDED))))
    accepted = [order for order in orders if order.job_id is not None]
    doubled = {name: count for name, count in jobs.items() if count != 1}
    strangers = [name for name, job in rows.items() if ids.get(name) not in {None, job.id}]
    yield Verdict(
        "every order made exactly one job, however often it was posted",
        len(accepted) == len(orders) and not doubled and not strangers and len(rows) == len(orders),
        {
            "orders": len(orders),
            "accepted": len(accepted),
            "jobs": len(rows),
            "posts": sum(order.tries for order in orders),
            "answers_lost": sum(order.lost_answers for order in orders),
            "refusals": dict(Counter(said for order in orders for said in order.refused)),
            "more_than_one_job": doubled,
            "other_job_than_told": strangers,
        },
    )
    states = {name: job.state for name, job in rows.items()}
    asked = {order.name for order in orders if order.cancel_after_s is not None}
    wrong = {
        name: {"state": state, "error": rows[name].error_code, "message": rows[name].error_message}
        for name, state in states.items()
        if state != "succeeded" and not (state == "cancelled" and name in asked)
    }
    ended = {name: ends[job.id] for name, job in rows.items() if ends[job.id] != 1}
    yield Verdict(
        "every job ended exactly once, as succeeded unless it was to be cancelled",
        not wrong and not ended,
        {
            "states": dict(Counter(states.values())),
            "to_be_cancelled": len(asked),
            "wrong_end": wrong,
            "not_one_terminal_event": ended,
            "attempts": dict(sorted(Counter(job.attempt for job in rows.values()).items())),
        },
    )


def models_are_whole(
    engine: Engine, http: httpx.Client, reference: dict[int, Tensors], image: bytes, restored: dict[int, bytes]
) -> Iterator[Verdict]:
    """One loadable model for each job that succeeded, equal in every bit to the undisturbed one, and at work."""
    with read_sessions(engine)() as session:
        jobs = session.scalars(select(Job).where(Job.name.like("storm-%"), Job.state == "succeeded")).all()
        models = session.scalars(select(ModelVersion).where(ModelVersion.name.like("storm-%"))).all()
    by_job = Counter(model.job_id for model in models)
    missing = [job.name for job in jobs if by_job[job.id] != 1]
    surplus = [model.name for model in models if model.job_id not in {job.id for job in jobs}]
    broken: dict[str, str] = {}
    unequal, again, images_wrong = [], 0, []
    for job in jobs:
        try:
            answer = http.get(f"/v1/models/{job.name}/versions/1/weights").raise_for_status()
            tensors = load(answer.content)
            again += job.attempt > 1
            if not equal(tensors, reference[job.options["seed"]]):
                unequal.append(job.name)
            if restore(http, f"{job.name}@1", image) != restored[job.options["seed"]]:
                images_wrong.append(job.name)
        except Exception as error:  # noqa: BLE001 - whatever it is, this model is not loadable
            broken[job.name] = repr(error)
    yield Verdict(
        "every model is complete, unique, loadable over HTTP, and restores an image",
        not missing and not surplus and not broken and not images_wrong,
        {
            "succeeded": len(jobs),
            "models": len(models),
            "not_one_model": missing,
            "without_job": surplus,
            "not_loadable": broken,
            "restores_otherwise": images_wrong,
        },
    )
    yield Verdict(
        "the weights equal an undisturbed run's, bit for bit",
        not unequal,
        {"compared": len(jobs) - len(broken), "of_them_resumed": again, "unequal": unequal},
    )


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes() for name in one
    )


def images_are_right(told: Restorations) -> Verdict:
    return Verdict(
        "every image restored meanwhile is right, or refused with a clear error",
        told.wrong == 0 and not told.unclear and told.right > 0,
        {
            "right": told.right,
            "wrong": told.wrong,
            "problems": dict(told.problems),
            "no_answer": told.no_answer,
            "unclear": told.unclear,
        },
    )


def one_worker_at_a_time(engine: Engine, service: Installation, thawed: list[float]) -> Iterator[Verdict]:
    """Leases do not overlap, nothing is written under an old one, and who has lost one soon stops computing."""
    found = audit.writes(engine)
    leases = audit.tenures(found)
    early, gaps = [], []
    for tenures in leases.values():
        for tenure, following in itertools.pairwise(tenures):
            gaps.append(following.claimed_at - tenure.last_write_at)
            if tenure.taken_back and tenure.ended_at is not None and tenure.ended_at < tenure.valid_until:
                early.append({"job": tenure.job_id, "by_s": tenure.valid_until - tenure.ended_at})
    stale = audit.stale(found)
    yield Verdict(
        "no lease is taken while another holds, and no write is accepted under an old one",
        not early and not stale and all(gap >= 0 for gap in gaps),
        {
            "leases": sum(map(len, leases.values())),
            "writes": len(found),
            "taken_back": sum(tenure.taken_back for tenures in leases.values() for tenure in tenures),
            "taken_too_early": early,
            "written_under_an_old_lease": stale,
            "least_time_from_last_write_to_next_claim_s": round(min(gaps), 3) if gaps else None,
        },
    )
    overlaps = []
    for job_id, at in lost_leases(service):
        claims = [tenure.claimed_at for tenure in leases.get(job_id, []) if tenure.claimed_at <= at][1:]
        # A frozen process computes nothing; it could do so again only once it was thawed.
        awake = [when for when in thawed if when <= at]
        if claims:
            overlaps.append(at - max(claims[-1], *awake[-1:]))
    yield Verdict(
        "who has lost a lease stops computing within another lease's time",
        all(overlap <= LEASE_S for overlap in overlaps),
        {"noticed": len(overlaps), "longest_overlap_s": round(max(overlaps), 3) if overlaps else None},
    )


def lost_leases(service: Installation) -> Iterator[tuple[str, float]]:
    """Which jobs' leases their workers found lost, and when, by the workers' logs."""
    for log in sorted((service.data_dir / "logs").glob("worker-training*.log*")):
        for line in log.read_text(errors="replace").splitlines():
            if "the lease was lost" in line and line.startswith("{"):
                said = json.loads(line)
                yield said["job_id"], datetime.fromisoformat(said["time"]).timestamp()


def nothing_is_left_over(service: Installation) -> Iterator[Verdict]:
    """After garbage collection there is no blob without a row, and no row without its whole blob."""
    settings = service.settings(orphan_grace_s=0.0)
    connections = Service.open(settings)
    try:
        reconciler.sweep(connections)
        with connections.read_sessions() as session:
            named = repository.referenced_blobs(session)
        assert settings.blob_dir is not None
        stored = {file.key for file in FolderStorage(settings.blob_dir).inventory()}
    finally:
        connections.close()
    yield Verdict(
        "no blob without a row, no row without its blob, after garbage collection",
        stored == named,
        {"blobs": len(stored), "orphans": len(stored - named), "missing": len(named - stored)},
    )
    code, report = service.doctor("--deep", DRTL_ORPHAN_GRACE_S="0")
    checks = report.get("checks", [])
    bad = [f"{check['check']}: {check['message']}" for check in checks if check.get("state") == "problem"]
    yield Verdict(
        "drtl doctor --deep finds nothing wrong",
        code == 0,
        {"exit_code": code, "checks": len(checks), "problems": bad, "said": report.get("said")},
    )


def tracebacks(folder: Path) -> dict[str, int]:
    """The exceptions whose tracebacks are in the logs: no invariant, but something to be looked at."""
    seen: Counter[str] = Counter()
    for log in sorted(folder.glob("*.log*")):
        for line in log.read_text(errors="replace").splitlines():
            if not (line.startswith("{") and line.endswith("}") and '"traceback"' in line):
                continue
            raised = re.findall(r"^[\w.]+(?:: .*)?$", json.loads(line)["traceback"], re.MULTILINE)
            said = re.sub(r"[0-9a-f]{12,}|[0-9]+", "…", raised[-1] if raised else "?")[:160]
            seen[f"{log.name.partition('.')[0]}: {said}"] += 1
    return dict(seen.most_common())


def ended(engine: Engine) -> bool:
    with Session(engine) as session:
        return session.scalar(select(Job.id).where(Job.state.not_in(ENDED)).limit(1)) is None


def opened(service: Installation) -> Engine:
    return open_database(service.settings().database_url)

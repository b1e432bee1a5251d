"""What one job costs, of everything that a plan must provide: computing, requests, rows, bytes, messages, claims.

`python benchmarks/unit_costs.py` starts a fresh embedded service, trains short jobs of the default kind in it, sends
requests, and claims jobs from long queues on SQLite and on PostgreSQL; a few minutes on two cores. Work is given in
seconds of one core (CPU time), which does not depend on who else uses the machine; requests by the clock do.
"""

import json
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Self

import psutil
import torch
import typer
from redis import Redis
from redis.exceptions import ConnectionError as Disconnected
from sqlalchemy import insert, text
from torch import Tensor

from app.core import jobs, repository, training_queue
from app.core.database import open_database, read_sessions, sessions
from app.core.folder_storage import FolderStorage
from app.core.tables import Dataset, Job, TrainingShare, new_id
from benchmarks.main_job import REPOSITORY, commit, machine
from migrations import migrate
from ml.backbones import build
from ml.checkpoint import Trainee
from ml.crew import crew_of
from ml.guidance import TaskMix
from ml.images import decode, to_uint8
from ml.optimizer import adam
from ml.options import PRESETS
from ml.pairs import TargetPair, split
from ml.race import Candidate, Race
from tests.images import image_pairs
from tests.servers import (
    RunningService,
    create_postgres_database,
    embedded_service,
    postgres_server,
)

PAIRS, SIDE = 10, 192
SHARES_OF_STEPS: Final = (0.1, 0.2)
WAITING: Final = 10_000
OWNERS: Final = 100
CLAIMERS: Final = 16


def measure(
    seed: int = 0,
    requests: Annotated[int, typer.Option(help="Of each kind.")] = 300,
    claims: Annotated[int, typer.Option(help="Of each of 16 claimers, from a queue of 10,000.")] = 10,
    steps: Annotated[int, typer.Option(help="Of each way to compute one.")] = 30,
    only: Annotated[str, typer.Option(help="job, claims or crew; the rest stays as it was recorded.")] = "",
    output: Path = REPOSITORY / "benchmarks/results/unit_costs.json",
) -> None:
    """Measure and write what was measured."""
    report: dict[str, Any] = json.loads(output.read_text()) if only and output.exists() else {}
    report |= {
        "benchmark": "unit_costs",
        "command": "python benchmarks/unit_costs.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "load_average": round(os.getloadavg()[1], 1),  # What others did meanwhile.
        "seed": seed,
        "pairs": PAIRS,
        "side": SIDE,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only in {"", "claims"}:
            show(report, "claims", claimed(folder, claims))
        if only in {"", "crew"}:
            show(report, "crew", stepped(steps, seed))
        if only in {"", "job"}:
            with embedded_service(folder / "service", DRTL_CHECKPOINT_EVERY_S="10") as service:
                show(report, "job", job_of_the_default_kind(service, seed))
                show(report, "requests", answered(service, requests))
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def show(report: dict[str, Any], key: str, figures: dict[str, Any]) -> None:
    report[key] = figures
    typer.echo(f"{key}: {json.dumps(figures)}")


# A job


def job_of_the_default_kind(service: RunningService, seed: int) -> dict[str, Any]:
    """Jobs of a tenth and of a fifth of the steps, and the line through both at all steps: a whole one takes long."""
    short, longer = (part_of_a_job(service, seed, share) for share in SHARES_OF_STEPS)
    whole: dict[str, Any] = {}
    for what, least in short.items():
        if isinstance(least, dict):
            names = least | longer[what]
            whole[what] = {name: round(at_all_steps(least.get(name, 0), longer[what].get(name, 0))) for name in names}
        else:
            whole[what] = round(at_all_steps(least, longer[what]), 2)
    # What a job's rows name at its end does not depend on its steps, and the second job's pairs are stored already.
    whole["blob_bytes"] = short["blob_bytes"]
    # Nor do messages: one, and another for each round of the reconciler in which no worker has taken the job yet.
    whole["messages"] = max(short["messages"], longer["messages"])
    return whole | {
        "measured": {str(share): part for share, part in zip(SHARES_OF_STEPS, (short, longer), strict=True)}
    }


def at_all_steps(short: float, longer: float) -> float:
    """The line through what two jobs cost, at the number of steps of the preset."""
    first, second = SHARES_OF_STEPS
    slope = (longer - short) / (second - first)
    return short + slope * (1.0 - first)


def part_of_a_job(service: RunningService, seed: int, share: float) -> dict[str, Any]:
    """Upload, train and register one job with a share of its steps; what that leaves in every store."""
    before = state_of(service)
    preset = PRESETS["quick"]
    with Messages(service) as messages:
        files = []
        for stem, clean, distorted in image_pairs(PAIRS, SIDE):
            files += [("clean", (f"{stem}.png", clean)), ("distorted", (f"{stem}.png", distorted))]
        options = {
            "name": f"unit-{share:g}",
            "seed": str(seed),
            "transfer_steps": str(round(share * preset.transfer.steps)),
            "finetune_steps": str(round(share * preset.finetune.steps)),
        }
        job_id = service.http.post("/v1/jobs", data=options, files=files).raise_for_status().json()["id"]
        ended = service.wait_for_end(job_id, timeout_s=900)
        assert ended["state"] == "succeeded", ended
    time.sleep(1.0)  # Until the worker has waited for its child, whose time is then its own.
    after = state_of(service)
    rows = {table: n - before["rows"][table] for table, n in after["rows"].items() if n > before["rows"][table]}
    return {
        "training_cpu_s": round(after["cpu_s"]["worker-training"] - before["cpu_s"]["worker-training"], 1),
        "api_cpu_s": round(after["cpu_s"]["api"] - before["cpu_s"]["api"], 2),
        "rows": rows,
        "database_bytes": after["database_bytes"] - before["database_bytes"],
        "blob_bytes": after["blob_bytes"] - before["blob_bytes"],
        "messages": messages.counts["training"],
    }


def state_of(service: RunningService) -> dict[str, Any]:
    """CPU seconds of every process with its ended children, and what the stores hold."""
    with closing(sqlite3.connect(service.data_dir / "drtl.sqlite3")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}  # noqa: S608
        (pages,), (size,) = (database.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size"))
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
    return {
        "cpu_s": {
            name: sum(psutil.Process(pid).cpu_times()[:4]) for name, pid in service.announced()["processes"].items()
        },
        "rows": rows,
        "database_bytes": (pages - free) * size,
        "blob_bytes": named_bytes(service.data_dir),
    }


def named_bytes(data_dir: Path) -> int:
    """Bytes of the blobs that rows name; what waits for the next sweep is left out."""
    engine = open_database(f"sqlite:///{data_dir / 'drtl.sqlite3'}")
    with read_sessions(engine)() as session:
        named = repository.referenced_blobs(session)
    engine.dispose()
    return sum(file.size_bytes for file in FolderStorage(data_dir / "blobs").inventory() if file.key in named)


class Messages:
    """Counts what is sent to each queue of the broker while the block runs."""

    def __init__(self, service: RunningService) -> None:
        url = psutil.Process(service.pid("api")).environ()["DRTL_BROKER_URL"]
        self.redis = Redis.from_url(url)
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self.monitor = self.redis.monitor()
        self.monitor.__enter__()
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()
        return self

    def listen(self) -> None:
        try:
            for told in self.monitor.listen():
                words = told["command"].split()
                if words[0] == "LPUSH":
                    self.counts[words[1]] += 1
        except (Disconnected, OSError, ValueError, AttributeError):
            return  # The block has been left.

    def __exit__(self, *_: object) -> None:
        self.monitor.connection.disconnect()
        self.thread.join(5)


# Requests


def answered(service: RunningService, many: int) -> dict[str, Any]:
    """One client, one request after the other: the api's CPU time and the clock's, each."""
    dataset = service.http.get("/v1/datasets").raise_for_status().json()["items"][0]["id"]
    job_id = service.http.get("/v1/jobs").raise_for_status().json()["items"][0]["id"]
    psutil.Process(service.pid("worker-training")).suspend()  # What is queued stays queued.
    names = iter(range(10**9))
    body = {"dataset_id": dataset, "allow_rejects": True}
    calls: dict[str, Callable[[], Any]] = {
        "GET /v1/jobs/{id}": lambda: service.http.get(f"/v1/jobs/{job_id}"),
        "POST /v1/jobs": lambda: service.http.post("/v1/jobs", json=body | {"name": f"queued-{next(names)}"}),
    }
    figures = {}
    for name, call in calls.items():
        api = psutil.Process(service.pid("api"))
        cpu_s, began, took = sum(api.cpu_times()[:2]), time.perf_counter(), []
        for _ in range(many):
            started = time.perf_counter()
            call().raise_for_status()
            took.append(time.perf_counter() - started)
        seconds = time.perf_counter() - began
        figures[name] = {
            "per_s": round(many / seconds, 1),
            "p50_ms": round(1000 * statistics.median(took), 2),
            "api_cpu_ms": round(1000 * (sum(api.cpu_times()[:2]) - cpu_s) / many, 2),
        }
    psutil.Process(service.pid("worker-training")).resume()
    return figures


# Claims


def claimed(folder: Path, each: int) -> dict[str, Any]:
    """Sixteen at once claim from 10,000 waiting jobs of a hundred owners."""
    with postgres_server() as server:
        return {
            "waiting": WAITING,
            "owners": OWNERS,
            "claimers": CLAIMERS,
            "sqlite": claims_on(f"sqlite:///{folder / 'claims.sqlite3'}", each),
            "postgresql": claims_on(create_postgres_database(server), each),
        }


def claims_on(url: str, each: int) -> dict[str, Any]:
    migrate(url)
    engine = open_database(url)
    maker = sessions(engine)
    with maker.begin() as session:
        session.add(Dataset(id="ds_0", scale=1, pairs=[]))
        session.flush()
        owners = [f"owner-{number % OWNERS}" for number in range(WAITING)]
        rows = [
            {"id": new_id("job"), "name": f"m{number}", "dataset_id": "ds_0", "options": {}, "owner": owner}
            for number, owner in enumerate(owners)
        ]
        session.execute(insert(Job), rows)
        session.execute(insert(TrainingShare), [{"owner": owner, "turn": 0.0} for owner in sorted(set(owners))])
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))

    def claim() -> float:
        began = time.perf_counter()
        with maker.begin() as session:
            assert jobs.claim_next(session, "task", 3600.0) is not None
        return time.perf_counter() - began

    alone = [claim() for _ in range(20)]
    start = threading.Barrier(CLAIMERS)

    def work(_: int) -> list[float]:
        start.wait()
        return [claim() for _ in range(each)]

    began = time.perf_counter()
    with ThreadPoolExecutor(CLAIMERS) as pool:
        together = [seconds for took in pool.map(work, range(CLAIMERS)) for seconds in took]
    seconds = time.perf_counter() - began
    with maker() as session:
        held = Counter(session.scalars(text("SELECT owner FROM jobs WHERE state = 'running'")).all())
        asked = time.perf_counter()
        for _ in range(20):
            training_queue.in_line(session)
        in_line_ms = 1000 * (time.perf_counter() - asked) / 20
    engine.dispose()
    return {
        "alone_p50_ms": round(1000 * statistics.median(alone), 2),
        "together_p50_ms": round(1000 * statistics.median(together), 2),
        "together_p99_ms": round(1000 * statistics.quantiles(together, n=100)[98], 2),
        "per_s": round(len(together) / seconds, 1),
        "who_waits_ms": round(in_line_ms, 2),
        "most_held_by_an_owner": max(held.values()),
        "least_held_by_an_owner": min(held[owner] for owner in set(owners)),
    }


# Several processes at one step


def stepped(steps: int, seed: int) -> dict[str, Any]:
    """Steps a second of one process with all threads, and of one process a thread, at the presets' batches."""
    threads = os.cpu_count() or 1
    figures: dict[str, Any] = {"processes": threads, "threads": threads}
    pairs = [
        TargetPair(name, to_uint8(decode(clean).pixels), to_uint8(decode(distorted).pixels))
        for name, clean, distorted in image_pairs(4, SIDE)
    ]
    for preset in ("quick", "paper"):
        for size in (1, threads):
            with crew_of(size, threads) as crew:
                network = build("vdsr", 2, seed)
                schedules = PRESETS[preset]
                lane = Candidate(
                    "guided-transfer",
                    Trainee(network, adam(network, 1e-4)),
                    TaskMix(torch.tensor([0.5, 0.5])),
                    schedules.transfer,
                    schedules.finetune,
                )
                images = [pair.clean for pair in pairs]
                race = Race([lane], split(pairs, seed), images, ["noise", "mild"], seed)
                race.enlist(crew)
                clock = Stopwatch(steps)
                try:
                    race.run(clock.after_step)
                except StopIteration:
                    figures[f"{preset}_{size}_steps_per_s"] = round(clock.rate(), 2)
    return figures


class Stopwatch:
    """Times so many steps after the first three."""

    def __init__(self, steps: int) -> None:
        self.steps, self.marks = steps, [0.0]

    def after_step(self, _phase: str, _candidate: str, step: int, loss: Tensor) -> None:
        float(loss)  # Waits for an accelerator.
        self.marks.append(time.perf_counter())
        if step == self.steps + 3:
            raise StopIteration

    def rate(self) -> float:
        return self.steps / (self.marks[-1] - self.marks[3])


if __name__ == "__main__":
    typer.run(measure)

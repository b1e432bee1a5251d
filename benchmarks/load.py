"""How many requests and jobs a second one api and its queue take: on SQLite and on PostgreSQL, by number of clients.

    python benchmarks/load.py [--seconds 5] [--jobs 100] [--clients 1,8,64]

The api is a process of its own, the clients share another. Jobs go through real workers, whose method trains nothing
(`benchmarks/noop_worker.py`). One JSON file with machine, commit and seed is written.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from sqlalchemy import func, select, update

from app.core.database import open_database, read_sessions, sessions
from app.core.folder_storage import FolderStorage
from app.core.tables import Job
from benchmarks.main_job import commit, machine
from tests.app.material import pair_files
from tests.app.possessions import fill
from tests.chaos.api_process import RunningApi, api
from tests.servers import create_postgres_database, ending, eventually, postgres_server, start, valkey_server

ROOT: Final = Path(__file__).resolve().parents[1]
PAIRS: Final = 10
LEAST_REQUESTS: Final = 20
SIDE: Final = 96  # Pixels. What larger images cost is the pair doctor's figure.
Requests = Callable[[], bytes]


def measure(
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 5.0,
    clients: Annotated[str, typer.Option(help="How many at a time.")] = "1,8,64",
    jobs: Annotated[int, typer.Option(help="That go through the queue.")] = 60,
    workers: Annotated[str, typer.Option(help="Training workers at a time.")] = "1,2",
    output: Path = ROOT / "benchmarks/results/load.json",
) -> None:
    """Measure and write what was measured."""
    report: dict[str, Any] = {
        "benchmark": "load",
        "command": " ".join(["python benchmarks/load.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": 0,
        "seconds": seconds,
        "busy_before": round(os.getloadavg()[0], 1),
        "databases": {},
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker_url = stack.enter_context(valkey_server(folder))
        server_url = stack.enter_context(postgres_server())
        for name in ("SQLite", "PostgreSQL"):
            database_url = "" if name == "SQLite" else create_postgres_database(server_url)
            with api(folder / name, broker_url, database_url) as running:
                kinds = requests_of(running)
                measured = {
                    kind: {number: asyncio.run(load(running, make, number, seconds)) for number in numbers(clients)}
                    for kind, make in kinds.items()
                }
                forget_jobs(running)
                through = {
                    number: jobs_per_s(running, kinds["POST /v1/jobs, JSON"], jobs, number)
                    for number in numbers(workers)
                }
            report["databases"][name] = {"requests": measured, "queue": through}
            print(json.dumps(report["databases"][name], indent=1), flush=True)
    output.write_text(json.dumps(report, indent=2) + "\n")


def numbers(listed: str) -> list[int]:
    return [int(number) for number in listed.split(",")]


def requests_of(running: RunningApi) -> dict[str, Requests]:
    """What makes the next request of each kind, as bytes for the wire."""
    assert running.settings.blob_dir is not None
    engine = open_database(running.settings.database_url)
    values = fill(sessions(engine), FolderStorage(running.settings.blob_dir), "", "succeeded")
    engine.dispose()
    form = httpx.Request("POST", running.url, files=pair_files(PAIRS, SIDE, SIDE))
    kind, body = form.headers["content-type"], form.read()
    name = itertools.count()

    def get() -> bytes:
        return request("GET", f"/v1/jobs/{values['job_id']}")

    def post_json() -> bytes:
        asked = {"dataset_id": values["dataset_id"], "name": f"load-{next(name)}", "allow_rejects": True}
        return request("POST", "/v1/jobs", json.dumps(asked).encode(), "application/json")

    def post_pairs() -> bytes:
        boundary = kind.partition("boundary=")[2]
        field = 'Content-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
        fields = [field.format("name", f"load-{next(name)}"), field.format("allow_rejects", "true")]
        before = "".join(f"--{boundary}\r\n{each}" for each in fields).encode()
        return request("POST", "/v1/jobs", before + body, kind)

    return {
        "GET /v1/jobs/{id}": get,
        "POST /v1/jobs, JSON": post_json,
        f"POST /v1/jobs, {PAIRS} pairs": post_pairs,
    }


def request(method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
    fields = ["Host: 127.0.0.1", *([f"Content-Type: {kind}", f"Content-Length: {len(body)}"] if body else [])]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode() + body


async def load(running: RunningApi, make: Requests, clients: int, seconds: float) -> dict[str, float]:
    """Requests a second, and how long each took in milliseconds, of clients that each send one after the other."""
    took: list[float] = []
    begin = time.perf_counter() + 0.5  # Warm by then.
    end = begin + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*running.address)
        while (now := time.perf_counter()) < end or len(took) < LEAST_REQUESTS:
            writer.write(make())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 20"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            if now >= begin:
                took.append(1000 * (time.perf_counter() - now))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    cuts = statistics.quantiles(took, n=100)
    return {
        "per_s": round(len(took) / (time.perf_counter() - begin), 1),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
    }


def forget_jobs(running: RunningApi) -> None:
    """End what the requests have queued, so that only what follows goes through the workers."""
    engine = open_database(running.settings.database_url)
    with engine.begin() as connection:
        connection.execute(update(Job).where(Job.state == "queued").values(state="cancelled"))
    engine.dispose()


def jobs_per_s(running: RunningApi, post: Requests, jobs: int, workers: int) -> dict[str, float]:
    """How quickly so many workers take jobs that do nothing, from the first one's start to the last one's end."""
    asyncio.run(post_some(running, post, jobs))
    engine = open_database(running.settings.database_url)
    with ExitStack() as stack:
        for number in range(workers):
            stack.enter_context(worker(running, number))
        read = read_sessions(engine)  # What would write holds the workers up, from one look to the next.

        def all_ended() -> bool:
            with read() as session:
                return not session.scalar(select(func.count()).where(Job.state.in_(("queued", "running"))))

        eventually(all_ended, timeout_s=600, every_s=0.2, what="the end of all jobs")
        ended = select(Job.started_at, Job.finished_at).where(Job.state == "succeeded", Job.started_at.is_not(None))
        with read() as session:
            times = session.execute(ended.order_by(Job.id.desc()).limit(jobs)).all()
    engine.dispose()
    assert len(times) == jobs
    took = (max(row.finished_at for row in times) - min(row.started_at for row in times)).total_seconds()
    return {"jobs": jobs, "per_s": round(jobs / took, 2)}


async def post_some(running: RunningApi, post: Requests, jobs: int) -> None:
    reader, writer = await asyncio.open_connection(*running.address)
    for _ in range(jobs):
        writer.write(post())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202"), head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
    writer.close()


@contextmanager
def worker(running: RunningApi, number: int) -> Iterator[None]:
    """A training worker as `drtl up` starts it, but for its method."""
    command = [sys.executable, "-m", "celery", "--app", "benchmarks.noop_worker", "--quiet", "worker"]
    command += ["--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    command += ["--hostname", f"training{number}@%h", "--queues", "training"]
    command += ["--pool", "prefork", "--concurrency", "1"]
    told = {
        "DRTL_DATA_DIR": str(running.settings.data_dir),
        "DRTL_BROKER_URL": running.settings.broker_url,
        "DRTL_DATABASE_URL": running.settings.database_url,
        "DRTL_TRAINING_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with (running.log_path.with_name(f"worker-{number}.log")).open("ab") as log:
        process = start(command, env=os.environ | told, cwd=ROOT, stdout=log, stderr=log)
    with ending(process):
        yield


if __name__ == "__main__":
    typer.run(measure)

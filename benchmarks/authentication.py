"""What a key costs: the time of a small request to an open service, and of the same with a key.

    python benchmarks/authentication.py [--requests 2000]

Prints JSON. Both services run on this machine at the same time, and requests alternate between them, so that whatever
else the machine does meets both alike.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from app.core import keys
from app.core.database import open_database, sessions
from app.core.settings import Settings
from app.embedded import find_broker, free_port
from migrations import migrate

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def process(*command: str, **environment: str) -> Iterator[None]:
    """A child that ends with the block."""
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, env=os.environ | environment, cwd=ROOT, **silent)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


@contextmanager
def service(folder: Path, broker_url: str, *, locked: bool) -> Iterator[httpx.Client]:
    """A client of a service of its own, with a key where it is locked."""
    settings = Settings(data_dir=folder, broker_url=broker_url, database_url=f"sqlite:///{folder / 'drtl.sqlite3'}")
    migrate(settings.database_url)
    headers = {}
    if locked:
        engine = open_database(settings.database_url)
        with sessions(engine).begin() as session:
            _, token = keys.create(session, "bench", ["read"], limits={"requests_per_minute": 10_000_000})
        engine.dispose()
        headers = {"Authorization": f"Bearer {token}"}
    port = free_port()
    environment = {
        "DRTL_DATA_DIR": str(folder),
        "DRTL_DATABASE_URL": settings.database_url,
        "DRTL_BROKER_URL": broker_url,
    }
    uvicorn = (sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--no-access-log")
    with (
        process(*uvicorn, "--port", str(port), **environment),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client,
    ):
        for _ in range(200):
            try:
                if client.get("/readyz").is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield client


def milliseconds(client: httpx.Client) -> float:
    begun = time.perf_counter()
    answer = client.get("/v1/jobs/job_00")
    assert answer.status_code == 404, answer.text
    return 1000 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        stack.enter_context(
            process(find_broker(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
        )
        clients = {}
        for name in ("open", "key"):
            (folder / name).mkdir()
            url = f"redis://127.0.0.1:{port}/0"
            clients[name] = stack.enter_context(service(folder / name, url, locked=name == "key"))
        took: dict[str, list[float]] = {name: [] for name in clients}
        for number in range(requests + 100):
            for name, client in clients.items():
                elapsed = milliseconds(client)
                if number >= 100:  # Both are warm by then.
                    took[name].append(elapsed)
    shown = {
        name: {f"p{cut}": round(statistics.quantiles(times, n=100)[cut - 1], 3) for cut in (50, 90, 99)}
        for name, times in took.items()
    }
    added = round(statistics.median(took["key"]) - statistics.median(took["open"]), 3)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"requests": requests, "milliseconds": shown, "added_p50": added, "machine": machine}, indent=2))


if __name__ == "__main__":
    main()

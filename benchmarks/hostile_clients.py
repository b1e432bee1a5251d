"""Hostile clients at full scale, `/healthz` and memory meanwhile: `python benchmarks/hostile_clients.py`.

The attacks are those of `tests/chaos/attacks.py`. The service, the attackers and the probe are processes of their own.
Writes one JSON file with machine, commit and seed.
"""

import asyncio
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.main_job import commit, machine
from tests.chaos.api_process import api
from tests.chaos.attacked import target_on
from tests.chaos.attacks import ATTACKS, SETTINGS, measure
from tests.servers import valkey_server

ROOT: Final = Path(__file__).resolve().parents[1]
CONNECTIONS: Final = {
    "idle": 10_000,
    "slow heads": 2000,
    "half bodies": 1000,
    "slow bodies": 1000,
    "bodies beyond the limit": 50,
    "unread downloads": 1000,
    "event streams": 1000,
    "pipelines": 200,
    "huge heads": 200,
    "many parts": 24,
    "waiting for images": 200,
}


def run(
    only: Annotated[list[str] | None, typer.Option(help="Names of attacks; all by default.")] = None,
    output: Path = ROOT / "benchmarks/results/hostile_clients.json",
) -> None:
    """Attack, and write how the service fared."""
    report: dict[str, Any] = {
        "benchmark": "hostile_clients",
        "command": " ".join(["python benchmarks/hostile_clients.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": 0,
        "busy_before": round(os.getloadavg()[0], 1),
        "settings": SETTINGS,
        "attacks": {},
    }
    with tempfile.TemporaryDirectory() as folder, valkey_server(Path(folder)) as broker_url:
        for name in only or ATTACKS:
            with api(Path(folder) / name.replace(" ", "-"), broker_url, **SETTINGS) as running:
                fared = asyncio.run(measure(running, target_on(running), ATTACKS[name], CONNECTIONS[name]))
            report["attacks"][name] = fared.as_dict()
            sys.stdout.write(f"{name}: {json.dumps(fared.as_dict())}\n")
    output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(run)

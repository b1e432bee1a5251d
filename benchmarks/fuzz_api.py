"""Schemathesis against the api, for as long as is asked for, in every situation of a client's keys.

    python benchmarks/fuzz_api.py --minutes 10 --seed 7

Writes one JSON file with machine, commit and seed; the exit code is 1 where a check has failed.
"""

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.main_job import commit, machine
from tests.chaos.fuzzing import SITUATIONS, fuzz
from tests.servers import valkey_server

ROOT: Final = Path(__file__).resolve().parents[1]


def measure(
    minutes: Annotated[float, typer.Option(help="In all, shared among the situations.")] = 10.0,
    seed: int = 0,
    output: Path = ROOT / "fuzzing.json",
) -> None:
    """Fuzz, and write what was found."""
    report: dict[str, Any] = {
        "benchmark": "fuzzing",
        "command": " ".join(["python benchmarks/fuzz_api.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "situations": {},
    }
    with tempfile.TemporaryDirectory() as folder, valkey_server(Path(folder)) as broker_url:
        for number, situation in enumerate(SITUATIONS):
            share_s = max(1, round(60 * minutes / len(SITUATIONS)))
            outcome = fuzz(situation, Path(folder) / str(number), broker_url, seed=seed, max_time=share_s)
            report["situations"][situation] = outcome.document
            sys.stdout.write(f"{situation}: {'nothing found' if outcome.passed else outcome.output}\n")
    output.write_text(json.dumps(report, indent=2) + "\n")
    raise typer.Exit(any(found["exit_code"] for found in report["situations"].values()))


if __name__ == "__main__":
    typer.run(measure)

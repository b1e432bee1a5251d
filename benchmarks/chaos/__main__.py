"""`python -m benchmarks.chaos`: the storm, its report as JSON, its summary as a page."""

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.chaos import storm
from benchmarks.main_job import REPOSITORY, commit, machine


def chaos(
    mode: Annotated[str, typer.Option(help="embedded or cluster.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Of the faults and the orders.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long processes are killed.")] = 300.0,
    jobs: Annotated[int, typer.Option(help="How many trainings are posted meanwhile.")] = 60,
    every: Annotated[float, typer.Option(help="Seconds from one fault to the next, on average.")] = 4.0,
    folder: Annotated[Path | None, typer.Option(help="Where data and logs go and stay; otherwise they go.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The report; benchmarks/results/chaos_MODE.json by default.")
    ] = None,
) -> None:
    """Kill the service's processes while it works, and judge what has become of the work."""
    if mode not in {"embedded", "cluster"}:
        raise typer.BadParameter("embedded or cluster", param_hint="--mode")
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}] {line}", flush=True)

    plan = storm.Plan(mode, seed, seconds, jobs, max(1, jobs // 8), every)  # type: ignore[arg-type]  # Judged above.
    for fault in plan.faults():
        print(f"  {fault.at_s:6.2f} s  {fault.kind} ({fault.choice})")
    with tempfile.TemporaryDirectory(prefix="drtl-chaos-") as temporary:
        report = {
            "command": " ".join(["python -m benchmarks.chaos", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
            "storm": storm.run(plan, folder or Path(temporary), say),
        }
    path = output or REPOSITORY / f"benchmarks/results/chaos_{mode}.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print("\n".join(summary(report["storm"])))
    print(f"\nwritten to {path}")
    if not report["storm"]["held"]:
        raise typer.Exit(1)


def summary(report: dict[str, Any]) -> list[str]:
    """One page for people."""
    lines = ["", f"{report['mode']}: {report['seconds']:.0f} s, seed {report['plan']['seed']}", ""]
    lines += [f"  {count:3} × {kind}" for kind, count in report["faults_done"].items()]
    lines.append("")
    for verdict in report["invariants"]:
        lines.append(f"{'held  ' if verdict['held'] else 'BROKEN'}  {verdict['invariant']}")
        lines += [
            f"          {name}: {value}" for name, value in verdict["evidence"].items() if value not in ({}, [], None)
        ]
    for title, key in (
        ("until /readyz is 200 again", "until_ready"),
        ("until the job steps again", "until_the_next_step"),
    ):
        lines += ["", title]
        lines += [
            f"  {kind:18} n={found['count']:3}  p50 {found['p50_s']:6.2f} s  max {found['max_s']:6.2f} s"
            for kind, found in report[key].items()
        ]
    if report["tracebacks"]:
        lines += ["", "tracebacks in the logs"]
        lines += [f"  {count:4} × {said}" for said, count in report["tracebacks"].items()]
    return lines


if __name__ == "__main__":
    typer.run(chaos)

"""`python -m benchmarks.chaos`: the storm, its report as JSON, its summary as a page."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.chaos import scenarios, small_disk, storm
from benchmarks.chaos.invariants import Verdict
from benchmarks.main_job import REPOSITORY, commit, machine

PARTS = ("storm", "duplicates", "clocks", "disk")


def chaos(
    mode: Annotated[str, typer.Option(help="embedded or cluster.")] = "embedded",
    parts: Annotated[str, typer.Option(help="Some of these, between commas.")] = ",".join(PARTS),
    seed: Annotated[int, typer.Option(help="Of the storm's faults and jobs.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long the storm kills processes.")] = 300.0,
    jobs: Annotated[int, typer.Option(help="How many trainings are posted in the storm.")] = 60,
    every: Annotated[float, typer.Option(help="Seconds from one fault to the next, on average.")] = 4.0,
    folder: Annotated[Path | None, typer.Option(help="Where data and logs go and stay; otherwise they go.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The report; benchmarks/results/chaos_MODE.json by default.")
    ] = None,
) -> None:
    """Kill, flush, fill and confuse the service while it works, and judge what has become of the work."""
    if mode not in {"embedded", "cluster"}:
        raise typer.BadParameter("embedded or cluster", param_hint="--mode")
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}] {line}", flush=True)

    plan = storm.Plan(mode, seed, seconds, jobs, max(1, jobs // 8), every)  # type: ignore[arg-type]  # Judged above.
    report: dict[str, Any] = {
        "benchmark": "chaos",
        "command": f"python -m benchmarks.chaos --mode {mode} --parts {parts} --seed {seed} --seconds {seconds:g} "
        f"--jobs {jobs} --every {every:g}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "mode": mode,
    }
    path = output or REPOSITORY / f"benchmarks/results/chaos_{mode}.json"
    with tempfile.TemporaryDirectory(prefix="drtl-chaos-") as temporary:
        Path(temporary).chmod(0o711)  # PostgreSQL runs as nobody where we are root, and may be asked to live in here.
        place = folder or Path(temporary)
        for part in parts.split(","):
            say(f"--- {part}")
            match part:
                case "storm":
                    for fault in plan.faults():
                        say(f"planned: {fault.at_s:6.2f} s  {fault.kind} ({fault.choice})")
                    report[part] = storm.run(plan, place / part, say)
                case "duplicates":
                    report[part] = judged(scenarios.duplicates(plan.mode, place / part, say))
                case "clocks":
                    report[part] = judged(scenarios.clocks(plan.mode, place / part, say))
                case "disk":
                    report[part] = {"invariants": small_disk.tried(plan.mode, place / part)}
                case _:
                    raise typer.BadParameter(f"one of {', '.join(PARTS)}", param_hint="--parts")
            path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")  # Later parts may take long.
            for verdict in report[part]["invariants"]:
                say(f"{mark(verdict)} {verdict['invariant']}")
    print("\n".join(summary(report)))
    print(f"\nwritten to {path}")
    verdicts = [verdict for part in PARTS if part in report for verdict in report[part]["invariants"]]
    if not all(verdict["held"] or "not_tried" in verdict["evidence"] for verdict in verdicts):
        raise typer.Exit(1)


def judged(verdicts: list[Verdict]) -> dict[str, Any]:
    return {"invariants": [asdict(verdict) for verdict in verdicts]}


def summary(report: dict[str, Any]) -> Iterator[str]:
    """One page for people."""
    for part in PARTS:
        if part not in report:
            continue
        yield ""
        yield f"{part}, {report['mode']}"
        for verdict in report[part]["invariants"]:
            yield f"  {mark(verdict)}  {verdict['invariant']}"
            for name, value in verdict["evidence"].items():
                if value not in ({}, [], None):
                    yield f"             {name}: {value}"
        yield from times(report[part])


def mark(verdict: dict[str, Any]) -> str:
    if "not_tried" in verdict["evidence"]:
        return "not tried"
    return "held     " if verdict["held"] else "BROKEN   "


def times(part: dict[str, Any]) -> Iterator[str]:
    """What only the storm has: how often each fault came, and how long the service took to get over it."""
    titles = {"until_ready": "until /readyz is 200 again", "until_the_next_step": "until the job steps again"}
    if "faults_done" in part:
        yield "  faults: " + ", ".join(f"{count} × {kind}" for kind, count in part["faults_done"].items())
    for key, title in titles.items():
        if key in part:
            yield f"  {title}"
            for kind, found in part[key].items():
                yield f"    {kind:18} n={found['count']:3}  p50 {found['p50_s']:6.2f} s  max {found['max_s']:6.2f} s"
    for said, count in part.get("tracebacks", {}).items():
        yield f"  in the logs: {count:4} × {said}"


if __name__ == "__main__":
    typer.run(chaos)

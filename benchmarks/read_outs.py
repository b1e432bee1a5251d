"""How the read-out of an expert is best made: ridge, number of crops and drawing against recorded transfers.

`python benchmarks/read_outs.py` fits the last layers of the shipped experts to each target in many ways, and compares
what they promise with the qualities that pre-training on one task alone had led to (Fig. 6 in the files of `drtl bench
paper`). Nothing is trained; it takes some minutes.
"""

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.devices import REPOSITORY, Device, real_devices, simulated_devices
from benchmarks.main_job import commit, machine
from benchmarks.trials import one_thread
from ml.prior import Prior, load_prior
from ml.read_out import gains_left_out, moments_of_pairs, own_read_out

SHARED: Final = REPOSITORY / "../shared/data"
RECORDED: Final = ("paper-quick.json", "paper-quick-simulated.json")
RIDGES: Final = (100.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.01, 0.001)
CROPS: Final = (2, 6, 16)
DRAWINGS: Final = 3
SHOTS: Final = 10


def measure(
    output: Annotated[Path, typer.Option(help="The JSON file.")] = REPOSITORY / "benchmarks/results/read-outs.json",
) -> None:
    """Fit every expert on every target that has recorded transfers."""
    one_thread()
    prior, transferred = load_prior(), recorded_transfers()
    simulated = simulated_devices(SHARED / "clean", SHOTS, 1, seed=0)
    devices = {each.name: each for each in [*real_devices(SHARED / "pairs", SHOTS, 1), *simulated]}
    report: dict[str, Any] = {
        "benchmark": "read_outs",
        "command": "python benchmarks/read_outs.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "prior": prior.version,
        "shots": SHOTS,
        "simulated": [each.name for each in simulated if each.name in transferred],
        "transferred": transferred,
        "read_outs": [],
    }
    for target, tasks in transferred.items():
        for drawing in range(DRAWINGS):
            for crops in CROPS:
                promised = promises(devices[target], list(tasks), prior, crops, drawing)
                about = {"target": target, "drawing": drawing, "crops": crops}
                report["read_outs"].append(about | {"gain_db": promised})
                typer.echo(json.dumps(about))
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def recorded_transfers() -> dict[str, dict[str, float]]:
    """Target → task → PSNR on unseen images after pre-training on that task alone and fine-tuning, mean over seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in RECORDED:
        report = json.loads((REPOSITORY / "benchmarks/results" / name).read_text())
        for trial in report["trials"]:
            if trial["kind"] == "one task" and (trial["backbone"], trial["shots"]) == (report["backbone"], SHOTS):
                found.setdefault(trial["target"], {}).setdefault(trial["task"], []).append(trial["psnr"])
    return {
        target: {task: statistics.fmean(values) for task, values in tasks.items()} for target, tasks in found.items()
    }


def promises(device: Device, tasks: list[str], prior: Prior, crops: int, drawing: int) -> dict[str, dict[str, float]]:
    """Ridge → task → mean gain on the pair left out, in dB; `own` is the expert as it is."""
    found: dict[str, dict[str, float]] = {}
    for task in tasks:
        expert = prior.experts[task]
        folds, own = moments_of_pairs(expert, device.train, drawing, crops=crops), own_read_out(expert)
        for ridge in (None, *RIDGES):
            way = "own" if ridge is None else f"{ridge:g}"
            found.setdefault(way, {})[task] = float(gains_left_out(folds, own, ridge).mean())
    return found


if __name__ == "__main__":
    typer.run(measure)

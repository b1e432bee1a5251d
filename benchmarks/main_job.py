"""The main job, measured over HTTP on a fresh embedded service: times, quality on unseen images, memory.

`python benchmarks/main_job.py [--targets DIR]` writes one JSON file with machine, commit and seed.
A target is a folder with train/ and test/, each with clean/ and distorted/. The first `--shots` pairs of train by name
are uploaded; test is only ever evaluated on.
"""

import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from PIL import Image

from app.demo import embedded_service
from drtl_client import Client, PairPaths, pairs_in
from ml.images import decode
from ml.metrics import psnr, ssim

REPOSITORY = Path(__file__).parents[1]


def measure(
    targets: Annotated[Path, typer.Option(help="Folder of targets.")] = REPOSITORY / "../shared/data/pairs",
    only: Annotated[list[str] | None, typer.Option(help="Names of targets; all by default.")] = None,
    shots: int = 10,
    preset: str = "quick",
    seed: int = 0,
    output: Path = REPOSITORY / "benchmarks/results/main_job.json",
) -> None:
    """Run the main job and its baseline on every target and write what was measured."""
    chosen = targets_in(targets, only)
    report: dict[str, Any] = {
        "command": "make bench",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "shots": shots,
        "preset": preset,
        "import_app_main_s": import_seconds(),
        "targets": {},
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_service(Path(folder) / "service") as url,
        Client(url) as client,
    ):
        pids = json.loads((Path(folder) / "service" / "service.json").read_text())["processes"]
        report["idle_rss_mib"] = {name: rss_mib(pid) for name, pid in pids.items()}
        for target in chosen:
            report["targets"][target.name] = measured_target(client, target, shots, preset, seed)
            typer.echo(json.dumps({target.name: report["targets"][target.name]}, indent=1))
        first = next(iter(report["targets"]))
        report["super_resolve_512"] = latency(client, Path(folder), f"{first}-auto")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def targets_in(folder: Path, only: list[str] | None) -> list[Path]:
    """Every target of the folder, or those of `only`, by name. Ends the program where there is none."""
    targets = [path for path in folder.resolve().glob("*") if path.is_dir() and (not only or path.name in only)]
    if not targets:
        named = f" named {' or '.join(only)}" if only else ""
        raise SystemExit(f"There is no target{named} in {folder.resolve()}: say with --targets where targets are.")
    return sorted(targets)


def measured_target(client: Client, target: Path, shots: int, preset: str, seed: int) -> dict[str, Any]:
    """One auto job, and one of fine-tuning from nothing with the same number of fine-tuning steps."""
    pairs, unseen = pairs_in(target / "train")[:shots], pairs_in(target / "test")
    measured: dict[str, Any] = {"test_pairs": len(unseen), "input": quality(unseen, None)}
    for scheme in ("auto", "baseline"):
        name = f"{target.name}-{scheme}"
        posted = time.perf_counter()
        accepted = client.jobs.create(pairs, name=name, preset=preset, scheme=scheme, seed=seed)
        accepted_s = time.perf_counter() - posted
        client.jobs.relation(accepted)
        graph_s = time.perf_counter() - posted
        job = client.jobs.wait(accepted)
        if job.metrics is None:
            raise SystemExit(f"{name}: {job.state}: {job.error}")
        measured[scheme] = {
            "post_to_202_s": accepted_s,
            "post_to_graph_s": graph_s,
            "post_to_succeeded_s": time.perf_counter() - posted,
            "verdict": job.verdict,
            "held_out": {key: job.metrics[key] for key in ("input", "baseline", "result", "chosen", "candidates")},
            "seconds": job.metrics["seconds"],
            "test": quality(unseen, lambda file, name=name: client.models[f"{name}@1"].super_resolve(file).content),
        }
    measured["gain_over_input_db"] = measured["auto"]["test"]["psnr"] - measured["input"]["psnr"]
    measured["gain_over_baseline_db"] = measured["auto"]["test"]["psnr"] - measured["baseline"]["test"]["psnr"]
    return measured


def quality(pairs: list[PairPaths], restore: Any) -> dict[str, float]:
    """Mean PSNR and SSIM over the pairs, of the input itself or of what `restore` makes of its file."""
    torch.set_num_threads(1)
    rows = []
    for pair in pairs:
        image = decode(restore(pair.distorted) if restore else pair.distorted.read_bytes()).pixels
        clean = decode(pair.clean.read_bytes()).pixels
        rows.append((psnr(image, clean), ssim(image, clean)))
    return {"psnr": statistics.fmean(p for p, _ in rows), "ssim": statistics.fmean(s for _, s in rows)}


def latency(client: Client, folder: Path, model: str, runs: int = 15) -> dict[str, float]:
    """Super-resolution of a 512×512 image over HTTP, beside the bare network in a process with the same threads."""
    rng = np.random.default_rng(0)
    smooth = np.array(
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).resize((512, 512), Image.Resampling.BICUBIC)
    )
    path = folder / "latency.png"
    Image.fromarray(smooth).save(path)
    weights = client.models[f"{model}@1"].download(folder / "weights.safetensors")
    service, bare = [], []
    for run in range(runs + 3):
        started = time.perf_counter()
        answer = client.models[f"{model}@1"].super_resolve(path)
        elapsed = time.perf_counter() - started
        Image.open(io.BytesIO(answer.content)).verify()
        if run >= 3:
            service.append(elapsed)
    threads = max(1, (os.cpu_count() or 2) // 2)
    command = [sys.executable, "-c", BARE_NETWORK, str(weights), str(threads), str(runs + 3)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    lines = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY
    ).stdout.split()
    bare = [float(line) for line in lines[3:]]
    over = statistics.median(service) - statistics.median(bare)
    return {
        "threads": threads,
        "service_p50_ms": 1e3 * statistics.median(service),
        "bare_network_p50_ms": 1e3 * statistics.median(bare),
        "overhead_ms": 1e3 * over,
    }


BARE_NETWORK = """
import sys, time
from pathlib import Path
import torch
from ml.model_file import unpack
from ml.precision import autocast, device

torch.set_num_threads(int(sys.argv[2]))
network, _ = unpack(Path(sys.argv[1]))
image = torch.rand(1, 3, 512, 512).contiguous(memory_format=torch.channels_last)
for _ in range(int(sys.argv[3])):
    started = time.perf_counter()
    with torch.inference_mode(), autocast(device()):
        network(image)
    print(time.perf_counter() - started)
"""


def import_seconds() -> float:
    script = "import time;t=time.perf_counter();import app.main;print(time.perf_counter()-t)"
    runs = [
        float(
            subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
            ).stdout
        )
        for _ in range(5)
    ]
    return statistics.median(runs)


def rss_mib(pid: int) -> float:
    """Resident memory of a process with its children."""
    process = psutil.Process(pid)
    resident: list[int] = [each.memory_info().rss for each in [process, *process.children(recursive=True)]]
    return sum(resident) / 2**20


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY).stdout.strip()


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    typer.run(measure)

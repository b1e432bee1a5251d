"""Super-resolution over HTTP beside the bare network: overhead, throughput, many clients, one very large image.

`python benchmarks/super_resolution.py` starts a fresh embedded service and writes one JSON file with machine, commit
and seed. Everything is a ratio of figures from this one run: where two are compared, their runs alternate.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import psutil
import pyvips
import torch
import typer

from app.demo import embedded_service
from benchmarks.main_job import commit, machine
from ml.backbones import SameSize
from ml.model_file import unpack
from ml.restore import load_restorer
from ml.tiling import restore_tiled
from tests.images import image_pairs

REPOSITORY: Final = Path(__file__).parents[1]
PLAIN_TILE, PLAIN_PADDING = 256, 10  # What Real-ESRGAN's users run: fixed tiles, a fixed padding, one after the other.


def measure(
    threads: Annotated[int, typer.Option(help="Of the inference worker and of the bare network alike.")] = 0,
    large_side: Annotated[int, typer.Option(help="Side of the very large image; 0 leaves it out.")] = 10_000,
    large_only: Annotated[bool, typer.Option("--large-only", help="Measure nothing but the very large image.")] = False,
    unshuffle: Annotated[int, typer.Option(help="Of the network; 4 costs a quarter of 2.")] = 2,
    clients: int = 64,
    requests: Annotated[int, typer.Option(help="Of each client.")] = 4,
    seed: int = 0,
    output: Path = REPOSITORY / "benchmarks/results/super_resolution.json",
) -> None:
    """Measure and write what was measured."""
    threads = threads or os.cpu_count() or 1
    os.environ["DRTL_INFERENCE_THREADS"] = str(threads)
    report: dict[str, Any] = {
        "command": " ".join(["python benchmarks/super_resolution.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "threads": threads,
        "backbone": f"vdsr, unshuffle {unshuffle}",
    }
    with tempfile.TemporaryDirectory() as name, embedded_service(Path(name) / "service") as url:
        folder = Path(name)
        with httpx.Client(base_url=url, timeout=3600) as client:
            model = make_model(client, unshuffle)
            weights = folder / "weights.safetensors"
            weights.write_bytes(client.get(f"/v1/models/{model.replace('@', '/versions/')}/weights").content)
            if not large_only:
                for key, side in (("256x256", 256), ("1_megapixel", 1024)):
                    show(report, key, latency(client, model, weights, side, threads, seed))
                show(report, "clients", many_clients(client, url, model, weights, clients, requests, threads, seed))
                show(report, "throughput", throughput(weights, threads, seed))
                show(report, "trust_and_ensemble", options(client, model, seed))
            if large_side:
                show(report, "large", large(client, folder, model, large_side, seed))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def show(report: dict[str, Any], key: str, figures: dict[str, Any]) -> None:
    report[key] = figures
    typer.echo(f"{key}: {json.dumps(figures)}")


def make_model(client: httpx.Client, unshuffle: int) -> str:
    """A model of the default kind. Its weights have hardly been trained, which costs as much to run as any others."""
    files = [("clean", (f"{name}.png", clean)) for name, clean, _ in image_pairs(4)]
    files += [("distorted", (f"{name}.png", distorted)) for name, _, distorted in image_pairs(4)]
    options = {"name": "bench", "scheme": "baseline", "finetune_steps": "20", "unshuffle": str(unshuffle)}
    job = client.post("/v1/jobs", files=files, data=options).raise_for_status().json()
    while job["state"] not in {"succeeded", "failed"}:
        time.sleep(0.5)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job
    return "bench@1"


def photograph(height: int, width: int, seed: int) -> bytes:
    """A PNG with the spectrum of a photograph: noise of all scales, compressible as photographs are."""
    image = sum(
        pyvips.Image.gaussnoise(
            -(-width // scale) + 2, -(-height // scale) + 2, sigma=6 * scale**0.5, mean=0, seed=seed + scale
        )
        .resize(scale, kernel="cubic")
        .crop(0, 0, width, height)
        for scale in (1, 8, 64)
    )
    colours = image.bandjoin([image * 0.9 + 8, image * 1.1 - 8]) + 128
    encoded = colours.cast("uchar").copy(interpretation="srgb").pngsave_buffer(compression=1)
    assert isinstance(encoded, bytes)
    return encoded


def restore(client: httpx.Client, model: str, image: bytes, **options: str) -> httpx.Response:
    headers = {"Content-Type": "image/png", "Accept": "image/png", "Prefer": "wait=3600"}
    url = f"/v1/models/{model}/super-resolve"
    answer = client.post(url, content=image, headers=headers, params=options)
    assert answer.status_code == 200, answer.text
    return answer


@contextmanager
def bare_network(weights: Path, threads: int) -> Iterator[Any]:
    """A process that runs the network alone; `run(height, width)` gives the seconds of one forward pass."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, "bare", str(weights), str(threads)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(height: int, width: int) -> float:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{height} {width}\n")
        child.stdin.flush()
        return float(child.stdout.readline())

    try:
        yield run
    finally:
        child.kill()
        child.wait()


def serve_bare(weights: Path, threads: int) -> None:
    """The other end of `bare_network`."""
    torch.set_num_threads(threads)
    network, _ = unpack(weights)
    for line in sys.stdin:
        height, width = map(int, line.split())
        image = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
        started = time.perf_counter()
        with torch.inference_mode():
            network(image)
        print(time.perf_counter() - started, flush=True)


def latency(client: httpx.Client, model: str, weights: Path, side: int, threads: int, seed: int) -> dict[str, Any]:
    """One client, one image after the other, alternating with the bare network on as many pixels and threads."""
    image, runs = photograph(side, side, seed), 40 if side <= 256 else 8
    service, bare, stages = [], [], []
    with bare_network(weights, threads) as run:
        for index in range(runs + 3):
            started = time.perf_counter()
            answer = restore(client, model, image)
            elapsed = time.perf_counter() - started
            alone = run(side, side)
            if index >= 3:
                service.append(1e3 * elapsed)
                bare.append(1e3 * alone)
                stages.append(server_timing(answer))
    over = statistics.median(one - other for one, other in zip(service, bare, strict=True))
    return {
        "runs": runs,
        "service_p50_ms": round(statistics.median(service), 2),
        "bare_network_p50_ms": round(statistics.median(bare), 2),
        "overhead_p50_ms": round(over, 2),
        "overhead_share": round(over / statistics.median(bare), 4),
        "stages_p50_ms": {
            name: round(statistics.median(each.get(name, 0.0) for each in stages), 2) for name in stages[0]
        },
    }


def server_timing(answer: httpx.Response) -> dict[str, float]:
    """Milliseconds by stage, of a `Server-Timing` header."""
    entries = (entry.strip().partition(";dur=") for entry in answer.headers["Server-Timing"].split(","))
    return {name: float(milliseconds) for name, _, milliseconds in entries}


def many_clients(
    client: httpx.Client, url: str, model: str, weights: Path, clients: int, requests: int, threads: int, seed: int
) -> dict[str, Any]:
    """All clients at once. In an ideal queue each request waits for one of every other client."""
    image = photograph(256, 256, seed)
    with bare_network(weights, threads) as run:
        run(256, 256)
        loop_s = statistics.median(run(256, 256) for _ in range(40))
    barrier = threading.Barrier(clients)

    def one(_index: int) -> list[float]:
        times = []
        with httpx.Client(base_url=url, timeout=600) as own:
            own.get("/healthz")
            barrier.wait()
            for _ in range(requests):
                started = time.perf_counter()
                restore(own, model, image)
                times.append(time.perf_counter() - started)
        return times

    restore(client, model, image)
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = sorted(each for of_one in pool.map(one, range(clients)) for each in of_one)
    elapsed = time.perf_counter() - started
    ideal_s = clients * loop_s
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    return {
        "clients": clients,
        "requests": len(times),
        "p50_s": round(statistics.median(times), 3),
        "p99_s": round(p99, 3),
        "ideal_queueing_s": round(ideal_s, 3),
        "p99_over_ideal": round(p99 / ideal_s, 3),
        "images_per_s": round(len(times) / elapsed, 2),
        "loop_images_per_s": round(1 / loop_s, 2),
        "throughput_over_loop": round(len(times) / elapsed * loop_s, 3),
    }


def throughput(weights: Path, threads: int, seed: int) -> dict[str, Any]:
    """Megapixels per second of the tiles, of the whole image at once, and of the loop that people run today."""
    torch.set_num_threads(threads)
    network = load_restorer(weights).network
    side, runs = 1536, 3
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))
    whole, tiled, plain = [], [], []
    for _ in range(runs):
        whole.append(seconds_of(lambda: untiled(network, image)))
        tiled.append(seconds_of(lambda: restore_tiled(network, image)))
        plain.append(seconds_of(lambda: plain_loop(network, image)))
    megapixels = side * side / 1e6
    error = (restore_tiled(network, image) - untiled(network, image)).abs().max()
    seam = (plain_loop(network, image) - untiled(network, image)).abs().max()
    return {
        "side": side,
        "untiled_mp_per_s": round(megapixels / statistics.median(whole), 4),
        "tiled_mp_per_s": round(megapixels / statistics.median(tiled), 4),
        "plain_loop_mp_per_s": round(megapixels / statistics.median(plain), 4),
        "tiled_over_untiled": round(statistics.median(whole) / statistics.median(tiled), 3),
        "tiled_over_plain_loop": round(statistics.median(plain) / statistics.median(tiled), 3),
        "tiled_largest_error": float(error),
        "plain_loop_largest_error": float(seam),
    }


def seconds_of(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.inference_mode()
def untiled(network: SameSize, image: torch.Tensor) -> torch.Tensor:
    restored: torch.Tensor = network(image[None].contiguous(memory_format=torch.channels_last))[0]
    return restored


@torch.inference_mode()
def plain_loop(network: SameSize, image: torch.Tensor) -> torch.Tensor:
    """Fixed tiles with a fixed padding, in float32."""
    restored = torch.empty_like(image)
    height, width = image.shape[1:]
    for top in range(0, height, PLAIN_TILE):
        for left in range(0, width, PLAIN_TILE):
            bottom, right = min(height, top + PLAIN_TILE), min(width, left + PLAIN_TILE)
            y, x = max(0, top - PLAIN_PADDING), max(0, left - PLAIN_PADDING)
            tile = image[None, :, y : min(height, bottom + PLAIN_PADDING), x : min(width, right + PLAIN_PADDING)]
            result = network(tile)[0]
            restored[:, top:bottom, left:right] = result[:, top - y : bottom - y, left - x : right - x]
    return restored


def options(client: httpx.Client, model: str, seed: int) -> dict[str, Any]:
    """What the ensemble and the trust map cost, as multiples of the plain request."""
    image = photograph(256, 256, seed)
    figures = {}
    for name, chosen in {"plain": {}, "ensemble": {"ensemble": "8"}, "explain": {"explain": "true"}}.items():
        figures[name] = statistics.median(
            seconds_of(lambda chosen=chosen: restore(client, model, image, **chosen)) for _ in range(5)
        )
    return {name: round(seconds / figures["plain"], 2) for name, seconds in figures.items()}


def large(client: httpx.Client, folder: Path, model: str, side: int, seed: int) -> dict[str, Any]:
    """A very large PNG in and out, with the peak memory of api and worker, and small images meanwhile."""
    image = photograph(side, side, seed)
    small = photograph(256, 256, seed)
    alone = statistics.median(seconds_of(lambda: restore(client, model, small)) for _ in range(9))
    pids = json.loads((folder / "service/service.json").read_text())["processes"]
    watched = {name: psutil.Process(pids[name]) for name in ("api", "worker-inference")}
    peak = dict.fromkeys(watched, 0.0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for name, process in watched.items():
                peak[name] = max(peak[name], process.memory_info().rss / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    meanwhile: list[float] = []
    try:
        started = time.perf_counter()
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(send_large, str(client.base_url), model, image)
            time.sleep(10)
            while not pending.done() and len(meanwhile) < 30:
                meanwhile.append(seconds_of(lambda: restore(client, model, small)))
                time.sleep(0.5)
            size = pending.result()
        elapsed = time.perf_counter() - started
    finally:
        done.set()
        watcher.join()
    return {
        "side": side,
        "input_mib": round(len(image) / 2**20, 1),
        "output_mib": round(size / 2**20, 1),
        "seconds": round(elapsed, 1),
        "megapixels_per_s": round(side * side / 1e6 / elapsed, 4),
        "peak_rss_mib": {name: round(mib, 1) for name, mib in peak.items()},
        "small_image_alone_p50_ms": round(1e3 * alone, 1),
        "small_image_meanwhile_p50_ms": round(1e3 * statistics.median(meanwhile), 1),
        "small_image_meanwhile_max_ms": round(1e3 * max(meanwhile), 1),
    }


def send_large(url: str, model: str, image: bytes) -> int:
    """Send the image, wait for it however long it takes, and decode all of the result."""
    headers = {"Content-Type": "image/png", "Accept": "image/png", "Prefer": "respond-async"}
    with httpx.Client(base_url=url, timeout=600) as own:
        answer = own.post(f"/v1/models/{model}/super-resolve", content=image, headers=headers)
        assert answer.status_code == 202, answer.text
        location = answer.headers["Location"]
        while (operation := own.get(location).json())["state"] in {"queued", "running"}:
            time.sleep(0.5)
        assert operation["state"] == "succeeded", operation
        restored = own.get(f"{location}/result").content
        decoded = pyvips.Image.new_from_buffer(restored, "", access="sequential", fail_on="error")
        assert decoded.avg() > 0  # Every pixel is there.
        return len(restored)


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        serve_bare(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        typer.run(measure)

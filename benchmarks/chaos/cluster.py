"""The cluster of docker-compose.yml as processes that are started again when they die, as containers would be.

`python -m benchmarks.chaos.cluster FOLDER` runs it until SIGTERM, and announces its processes as `drtl up` does. The
commands are the compose file's; `restart: unless-stopped` is `app.supervision`, which gets slower as Docker does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.embedded import announce, is_ready, stop_signals
from app.supervision import TICK_S, Child, Supervisor
from benchmarks.chaos.clock import skewable
from tests.compose import Cluster, local_cluster
from tests.servers import PostgresInstallation, as_user, eventually, postgres_answers, postgres_installation, start

START_S = 90.0
# Runs a program as another user. A change of user ends the bond to the parent's life, so it is asked for again.
AS_USER = """
import ctypes, os, sys
user, *command = sys.argv[1:]
os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
ctypes.CDLL(None).prctl(1, 9)
os.execv(command[0], command)
"""


@dataclass(frozen=True)
class Sizes:
    """How many of each there are."""

    training: int
    inference: int


def containers(cluster: Cluster, postgres: PostgresInstallation, folder: Path, sizes: Sizes) -> Iterator[Child]:
    """Everything that is kept running, in the order in which it starts."""
    command = postgres.command
    if postgres.user is not None:
        command = [sys.executable, "-c", AS_USER, str(postgres.user), *command]
    yield Child("postgres", command, 5.0)
    (folder / "valkey").mkdir(exist_ok=True)
    options = ["--port", cluster.environment["VALKEY_PORT"], "--bind", "127.0.0.1", "--dir", str(folder / "valkey")]
    yield Child("valkey", [*cluster.command(cluster.services["valkey"]["command"]), *options], 3.0)
    yield Child("api", cluster.command(cluster.services["api"]["command"]), 3.0)
    for kind, count in (("training", sizes.training), ("inference", sizes.inference)):
        written = cluster.command(cluster.services[f"worker-{kind}"]["command"])
        for number in range(1, count + 1):
            name = f"worker-{kind}-{number}"
            # Each container has a host name of its own.
            command = [word.replace("%h", name) for word in written]
            yield Child(name, skewable(command, folder, name), 7.0)
    yield Child("beat", skewable(cluster.command(cluster.services["beat"]["command"]), folder, "beat"), 2.0)


def environment_of(cluster: Cluster) -> dict[str, str]:
    """What the compose file sets, with what this process was told above it; all of the service's own have the same."""
    told = {name: value for name, value in os.environ.items() if name.startswith("DRTL_")}
    if (temporary := os.environ.get("CHAOS_TMPDIR")) is not None:
        told["TMPDIR"] = temporary
    return cluster.environment_of("api") | told


def serve(folder: Path, sizes: Sizes) -> None:
    """Run the cluster until a signal asks to stop."""
    (folder / "logs").mkdir(parents=True)
    with stop_signals() as stopping, postgres_installation() as postgres:
        # The role and the database are made before the server is one of those that may be killed.
        first = start(postgres.command, cwd="/", stderr=subprocess.DEVNULL, **as_user(postgres.user))
        eventually(lambda: postgres_answers(postgres.url), what="PostgreSQL")
        cluster = local_cluster(postgres.url, folder)
        environment = environment_of(cluster)
        migration = cluster.command(cluster.services["migrate"]["command"])
        subprocess.run(migration, env=environment, cwd=folder, check=True)
        first.terminate()
        first.wait()
        supervisor = Supervisor(folder, environment, lambda line: print(line, flush=True))
        url = f"http://127.0.0.1:{cluster.local['8000']}"
        try:
            for child in containers(cluster, postgres, folder, sizes):
                supervisor.add(child)
            announce(folder, url, supervisor)
            deadline = time.monotonic() + START_S
            while not stopping and not is_ready(url):
                supervisor.tick()
                if time.monotonic() > deadline:
                    sys.exit("the cluster is not ready")
                time.sleep(TICK_S)
            print("is ready", flush=True)
            while not stopping:
                time.sleep(TICK_S)
                if supervisor.tick():
                    announce(folder, url, supervisor)
        finally:
            supervisor.stop(*(name for name in supervisor.children if name not in {"postgres", "valkey"}))
            supervisor.stop("valkey", "postgres")


if __name__ == "__main__":
    serve(
        Path(sys.argv[1]),
        Sizes(int(os.environ["DRTL_TRAINING_WORKERS"]), int(os.environ["DRTL_INFERENCE_WORKERS"])),
    )

"""The cluster of docker-compose.yml without containers: each service's own command, on a real PostgreSQL and Valkey.

Names of containers and paths inside them are mapped to local ones; commands, order and health checks are the file's,
and so is, where the kernel permits it, what a process may do: its root is read-only, and it has no capabilities.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml

from app.embedded import find_broker, free_port
from tests.servers import postgres_programs

ROOT = Path(__file__).resolve().parents[1]
OWN = ["api", "worker-training", "worker-inference", "beat"]


@dataclass(frozen=True)
class Cluster:
    """The compose file's services as local processes."""

    services: dict[str, dict[str, Any]]
    local: dict[str, str]  # What is written in the file → what it is here.
    environment: dict[str, str]
    writable: list[Path]  # All that processes of the service may write to.
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def mapped(self, text: str) -> str:
        for written, here in self.local.items():
            text = text.replace(written, here)
        return text

    def command(self, words: list[str]) -> list[str]:
        return [self.mapped(word) for word in words]

    def environment_of(self, name: str) -> dict[str, str]:
        return self.environment | {key: self.mapped(value) for key, value in self.services[name]["environment"].items()}

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a service's own health check."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(
            self.command(command),
            env=self.environment_of(name),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def interpolated(text: str) -> str:
    """`${NAME:-default}` as compose reads it where the environment says nothing."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def compose_services() -> dict[str, dict[str, Any]]:
    services = yaml.safe_load(interpolated((ROOT / "docker-compose.yml").read_text()))["services"]
    for service in services.values():
        service["environment"] = {key: str(value) for key, value in service.get("environment", {}).items()}
    return dict(services)


def stand_in_for_valkey_cli(folder: Path) -> Path:
    """The wheel brings the server alone. This sends a command to the test's server; it fails without an answer."""
    program = folder / "valkey-cli"
    send = "import os, sys, redis; redis.Redis(port=int(os.environ['VALKEY_PORT'])).execute_command(*sys.argv[1:])"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{send}" "$@"\n')
    program.chmod(0o755)
    return program


def local_cluster(postgres_url: str, folder: Path) -> Cluster:
    """The services with their names, ports and folders mapped to this machine; makes their role and database."""
    services = compose_services()
    blobs, scratch = folder / "blobs", folder / "scratch"
    for writable in (blobs, scratch):
        writable.mkdir()
    chosen = services["postgres"]["environment"]
    user, password, database = (chosen[f"POSTGRES_{key}"] for key in ("USER", "PASSWORD", "DB"))
    with psycopg.connect(f"{postgres_url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        connection.execute(f"CREATE DATABASE {database} OWNER {user}")
    valkey_port, api_port = free_port(), free_port()
    postgres_port = postgres_url.rpartition(":")[2]
    local = {
        "postgres:5432": f"127.0.0.1:{postgres_port}",
        "valkey:6379": f"127.0.0.1:{valkey_port}",
        "/blobs": str(blobs),
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - it is what containers listen on
        "8000": str(api_port),
        "valkey-server": find_broker(),
        "valkey-cli": shutil.which("valkey-cli") or str(stand_in_for_valkey_cli(folder)),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DRTL_")}
    environment = inherited | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(postgres_programs()), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PGHOST": "127.0.0.1",
        "PGPORT": postgres_port,
        "VALKEY_PORT": str(valkey_port),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
        "TMPDIR": str(scratch),
    }
    if prior := os.environ.get("DRTL_PRIOR_PATH"):
        environment["DRTL_PRIOR_PATH"] = prior
    return Cluster(services, local, environment, [blobs, scratch])

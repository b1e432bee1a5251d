"""The cluster of docker-compose.yml without containers: each service's own command, on a real PostgreSQL and Valkey.

Names of containers and paths inside them are mapped to local ones; commands, order and health checks are the file's,
and so is, where the kernel permits it, what a process may do: its root is read-only, and it has no capabilities.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from app.embedded import find_broker, free_port
from tests import confinement
from tests.images import image_pairs
from tests.servers import ServiceUnderTest, ending, eventually, postgres_programs, start

ROOT = Path(__file__).resolve().parents[2]
OWN = ["api", "worker-training", "worker-inference", "beat"]


@dataclass(frozen=True)
class Cluster:
    """The compose file's services as local processes."""

    services: dict[str, dict[str, Any]]
    local: dict[str, str]  # What is written in the file → what it is here.
    environment: dict[str, str]
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


def test_every_service_waits_for_what_it_needs() -> None:
    services = compose_services()
    assert {"postgres", "valkey", "migrate", *OWN} == set(services)
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in OWN:
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert services[name]["depends_on"]["valkey"] == {"condition": "service_healthy"}
        assert services[name]["environment"] == services["migrate"]["environment"]
    for name in ["postgres", "valkey", *OWN]:
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services[name]["restart"] == "unless-stopped"


def test_no_container_may_more_than_it_needs() -> None:
    for name, service in compose_services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert "privileged" not in service, name
    for name in ["migrate", *OWN]:
        assert compose_services()[name]["volumes"] == ["blobs:/blobs", "/tmp"]  # All that can be written to.
        assert "cap_add" not in compose_services()[name]
    assert re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE) == ["10001"]


def test_what_the_image_is_made_of_is_named_and_is_there() -> None:
    """Nothing else comes near the image, such as a `.env` with passwords, or `.git`."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    copied = {word for line in lines for word in line.split()}
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert set(packages) <= copied


def stand_in_for_valkey_cli(folder: Path) -> Path:
    """The wheel brings the server alone. This sends a command to the test's server; it fails without an answer."""
    program = folder / "valkey-cli"
    send = "import os, sys, redis; redis.Redis(port=int(os.environ['VALKEY_PORT'])).execute_command(*sys.argv[1:])"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{send}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def cluster(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    services, folder = compose_services(), tmp_path_factory.mktemp("cluster")
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
    cluster = Cluster(services, local, environment)
    with ExitStack() as running:
        logs = running.enter_context((folder / "log").open("wb"))

        def begin(name: str, *more: str) -> None:
            command = [*cluster.command(services[name]["command"]), *more]
            if name in OWN and confinement.reason_why_not() is None:
                command = confinement.confined(command, [blobs, scratch])
            process = start(command, env=cluster.environment_of(name), cwd=folder, stdout=logs, stderr=logs)
            cluster.processes[name] = running.enter_context(ending(process))

        begin("valkey", "--port", str(valkey_port), "--bind", "127.0.0.1", "--dir", str(folder))
        migration = cluster.command(services["migrate"]["command"])
        subprocess.run(migration, env=cluster.environment_of("migrate"), cwd=folder, check=True, timeout=60)
        for name in OWN:
            services[name]["environment"] |= {"DRTL_TRAINING_THREADS": "1", "DRTL_INFERENCE_THREADS": "1"}
            begin(name)
        yield cluster
        for process in cluster.processes.values():
            process.terminate()  # All at once; leaving waits for each.


@pytest.mark.parametrize("name", ["postgres", "valkey", *OWN])
def test_each_health_check_passes_on_the_running_service(cluster: Cluster, name: str) -> None:
    eventually(lambda: cluster.check(name).returncode == 0, timeout_s=40, every_s=0.5, what=f"{name}'s health check")


def make_key(cluster: Cluster, *options: str) -> dict[str, str]:
    """The headers of a key, made as `docker compose run --rm api drtl keys create …` makes it."""
    drtl = [sys.executable, "-c", "from app.cli import main; main()"]
    command = [*drtl, "keys", "create", *options, "--json"]
    made = subprocess.run(command, env=cluster.environment_of("api"), check=True, capture_output=True, timeout=60)
    return {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}


def test_the_main_job_passes_on_the_cluster_with_a_key_and_with_no_other(cluster: Cluster) -> None:
    service = ServiceUnderTest()
    url = f"http://127.0.0.1:{cluster.local['8000']}"
    key, another = make_key(cluster, "--name", "me"), make_key(cluster, "--name", "somebody-else")
    assert httpx.get(f"{url}/v1/jobs").status_code == 401
    with httpx.Client(base_url=url, headers=key, timeout=60) as service.http:
        job_id = service.post_job("cluster", finetune_steps=6)
        job = service.wait_for_end(job_id)
        assert job["state"] == "succeeded", job["error"]
        assert service.http.get(f"/v1/jobs/{job_id}/graph").status_code == 200
        answer = service.http.post(
            "/v1/models/cluster@1/super-resolve", content=image_pairs(1)[0][2], headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        assert service.http.get("/v1/models/cluster/versions/1/onnx").status_code == 200
        for path in (f"/v1/jobs/{job_id}", "/v1/models/cluster", "/v1/models/cluster/versions/1/onnx"):
            assert httpx.get(url + path, headers=another).status_code == 404


@pytest.mark.parametrize("name", ["api", "worker-training", "beat"])
def test_health_checks_fail_where_nothing_runs(cluster: Cluster, name: str) -> None:
    elsewhere = Cluster(
        cluster.services, cluster.local | {"8000": "9", "valkey:6379": "127.0.0.1:9"}, cluster.environment
    )
    assert elsewhere.check(name).returncode != 0


@pytest.mark.parametrize("name", OWN)
def test_the_main_job_needs_no_writable_root_no_home_and_no_rights(cluster: Cluster, name: str) -> None:
    """The tests above have passed on these very processes."""
    if reason := confinement.reason_why_not():
        pytest.skip(reason)
    about = Path("/proc") / str(cluster.processes[name].pid)
    mapped = [line.split()[0] for line in (about / "uid_map").read_text().splitlines()]
    assert mapped == re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    mounts = [line.split() for line in (about / "mountinfo").read_text().splitlines()]
    [root] = [mount for mount in mounts if mount[4] == "/"]
    assert "ro" in root[5].split(",")
    status = dict(line.split(":", 1) for line in (about / "status").read_text().splitlines())
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert status[kind].strip() == "0" * 16
    assert status["NoNewPrivs"].strip() == "1"

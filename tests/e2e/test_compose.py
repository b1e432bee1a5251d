"""The cluster of docker-compose.yml runs the main job, its services wait for each other, its health checks tell."""

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from tests import confinement
from tests.compose import OWN, ROOT, Cluster, compose_services, local_cluster
from tests.images import image_pairs
from tests.servers import ServiceUnderTest, ending, eventually, start


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


def test_every_process_of_the_service_is_given_the_operators_settings() -> None:
    for name in ["migrate", *OWN]:
        assert compose_services()[name]["env_file"] == [{"path": "drtl.env", "required": False}]
    assert "drtl.env" in (ROOT / ".gitignore").read_text().splitlines()  # It may hold secrets.


def test_the_number_of_workers_is_kept_where_every_command_reads_it() -> None:
    """`docker compose up` without `--scale` starts as many as the file says, whatever ran before."""
    written = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    numbers = {name: service["scale"] for name, service in written.items() if "scale" in service}
    assert numbers == {
        "worker-training": "${DRTL_TRAINING_WORKERS:-1}",
        "worker-inference": "${DRTL_INFERENCE_WORKERS:-1}",
    }
    assert {compose_services()[name]["scale"] for name in numbers} == {1}


def test_with_gpus_one_image_is_built_with_cuda_and_both_workers_get_one() -> None:
    services = yaml.safe_load((ROOT / "deploy/docker-compose.gpu.yml").read_text())["services"]
    assert set(services) == {"migrate", *OWN}
    assert {service["build"]["args"]["TORCH"] for service in services.values()} == {"cuda"}
    assert (ROOT / "requirements/torch-cuda.txt").exists()
    for name, service in services.items():
        wanted = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        expected = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}] if name.startswith("worker") else []
        assert wanted == expected, name


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


@pytest.fixture(scope="module")
def cluster(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    cluster = local_cluster(postgres_url, folder)
    services = cluster.services
    with ExitStack() as running:
        logs = running.enter_context((folder / "log").open("wb"))

        def begin(name: str, *more: str) -> None:
            command = [*cluster.command(services[name]["command"]), *more]
            if name in OWN and confinement.reason_why_not() is None:
                command = confinement.confined(command, cluster.writable)
            process = start(command, env=cluster.environment_of(name), cwd=folder, stdout=logs, stderr=logs)
            cluster.processes[name] = running.enter_context(ending(process))

        begin("valkey", "--port", cluster.environment["VALKEY_PORT"], "--bind", "127.0.0.1", "--dir", str(folder))
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


def test_the_doctor_finds_nothing_wrong_where_only_blobs_and_scratch_can_be_written_to(cluster: Cluster) -> None:
    command = [sys.executable, "-c", "from app.cli import main; main()", "doctor", "--json"]
    if confinement.reason_why_not() is None:
        command = confinement.confined(command, cluster.writable)
    eventually(lambda: cluster.check("beat").returncode == 0, timeout_s=40, every_s=0.5, what="the first round")
    environment = cluster.environment_of("api")
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("name", ["api", "worker-training", "beat"])
def test_health_checks_fail_where_nothing_runs(cluster: Cluster, name: str) -> None:
    elsewhere = dataclasses.replace(
        cluster, local=cluster.local | {"8000": "9", "valkey:6379": "127.0.0.1:9"}, processes={}
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

"""`python -m app.embedded`: one service to a folder, a free port, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.servers import RunningService, children_of, embedded_service, eventually, is_alive


def test_a_second_service_on_the_same_folder_is_refused_and_told_where_the_first_is(service: RunningService) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "app.embedded"],
        env=os.environ | {"DRTL_DATA_DIR": str(service.data_dir)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert service.url in second.stderr
    assert str(service.process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert service.http.get("/readyz").status_code == 200


def test_everything_that_runs_is_announced(service: RunningService) -> None:
    announced = service.announced()
    assert announced["pid"] == service.process.pid
    assert set(announced["processes"]) == {"valkey", "api", "worker-training", "worker-inference", "beat"}
    assert sorted(announced["processes"].values()) == children_of(service.process.pid)


def test_answers_on_a_kept_connection_are_not_held_back(service: RunningService) -> None:
    # Without TCP_NODELAY on the inherited socket, each would take the 40 ms of a delayed acknowledgement.
    times = []
    for _ in range(20):
        began = time.perf_counter()
        service.http.get("/healthz")
        times.append(time.perf_counter() - began)
    assert sorted(times)[len(times) // 2] < 0.03


def test_the_brokers_password_is_in_no_command_line(service: RunningService) -> None:
    processes = [service.process.pid, *service.announced()["processes"].values()]
    for pid in processes:
        assert b"redis://:" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def assert_started_again(service: RunningService, name: str) -> None:
    before = service.pid(name)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: service.pid(name) != before, what=f"a new {name}")


def test_a_child_that_dies_is_started_again(service: RunningService) -> None:
    for name in ("beat", "worker-inference"):
        assert_started_again(service, name)


def test_a_taken_port_is_replaced_and_one_signal_stops_everything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with embedded_service(tmp_path / "data", DRTL_PORT=str(port)) as service:
            assert not service.url.endswith(f":{port}")
            said = (tmp_path / "data" / "supervisor.log").read_text()
            assert f"Port {port} is taken, using {service.url.rpartition(':')[2]} instead." in said
            everybody = [*service.announced()["processes"].values(), service.training_child()]
            began = time.monotonic()
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(15) == 0
            assert time.monotonic() - began < 11
            assert not any(is_alive(pid) for pid in everybody)
            assert not (tmp_path / "data" / "service.json").exists()


def test_a_service_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "drtl.sqlite3").write_text(
        "this is no database, but long enough to be looked at as if it were one" * 20
    )
    answer = subprocess.run(
        [sys.executable, "-m", "app.embedded"],
        env=os.environ | {"DRTL_DATA_DIR": str(data_dir), "DRTL_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1
    assert "could not be migrated" in answer.stderr
    assert not (data_dir / "service.json").exists()


def test_a_damaged_broker_file_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "valkey" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("no manifest")
    with embedded_service(tmp_path / "data") as service:
        assert service.http.get("/readyz").status_code == 200
    assert len(list((tmp_path / "data").glob("valkey-damaged-*"))) == 1


def test_as_many_workers_run_as_the_settings_say(tmp_path: Path) -> None:
    with embedded_service(tmp_path / "data", DRTL_TRAINING_WORKERS="2", DRTL_INFERENCE_WORKERS="2") as service:
        workers = {name for name in service.announced()["processes"] if name.startswith("worker-")}
        assert workers == {f"worker-{kind}-{number}" for kind in ("training", "inference") for number in (1, 2)}
        jobs = [service.post_job(name, finetune_steps=40) for name in ("first", "second")]
        eventually(lambda: [service.job(job)["state"] for job in jobs] == ["running"] * 2, what="both jobs at work")

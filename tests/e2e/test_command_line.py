"""The `drtl` command against the real service: the main job in one line, JSON for programs, exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.images import image_pairs
from tests.servers import RunningService

DRTL = [sys.executable, "-c", "from app.cli import main; main()"]
SHORT = ["--scheme", "baseline", "-o", "finetune_steps=20", "-o", "unshuffle=4"]


def environment(service: RunningService) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DRTL_")}
    return inherited | {"DRTL_URL": service.url, "COLUMNS": "120"}


def drtl(service: RunningService, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*DRTL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(service), check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs, one of which is shifted."""
    folder = tmp_path_factory.mktemp("pairs") / "scanner"
    for index, (stem, clean, distorted) in enumerate(image_pairs(6)):
        for kind, content in (("clean", clean), ("distorted", distorted)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{stem}.png").write_bytes(content)
        if index == 5:
            path = folder / "distorted" / f"{stem}.png"
            image = Image.open(path)
            image.load()
            image.transform(image.size, Image.Transform.AFFINE, (1, 0, 4, 0, 1, 0)).save(path)
    return folder


@pytest.fixture(scope="module")
def trained(service: RunningService, folder: Path) -> subprocess.CompletedProcess[str]:
    return drtl(service, "jobs", "create", folder, *SHORT, "--wait", "--json")


def test_one_line_is_the_whole_main_job(service: RunningService, folder: Path, tmp_path: Path) -> None:
    ended = drtl(service, "jobs", "create", folder, "--name", "one-line", *SHORT, "--wait")
    assert ended.returncode == 0, ended.stderr
    assert "6 pairs uploaded" in ended.stderr
    assert "crop5: " in ended.stderr
    assert "fine tuning" in ended.stderr
    for told in ("Which known distortions", "PSNR", "drtl upscale photo.png --model one-line@1"):
        assert told in ended.stdout
    photo = folder / "distorted" / "crop0.png"
    restored = drtl(service, "upscale", photo, "--model", "one-line@1", "--output", tmp_path)
    assert restored.returncode == 0, restored.stderr
    with Image.open(tmp_path / "crop0.restored.png") as image, Image.open(photo) as before:
        assert image.size == before.size


def test_with_json_standard_output_is_json_and_nothing_else(
    service: RunningService, trained: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert trained.returncode == 0, trained.stderr
    job = json.loads(trained.stdout)
    assert job["state"] == "succeeded"
    assert job["name"] == "scanner"

    def answer(*arguments: str | Path) -> Any:
        ended = drtl(service, *arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    assert answer("jobs", "show", job["id"]) == job
    assert job in answer("jobs", "list")
    assert answer("jobs", "list", "--limit", "1", "--state", "failed") == []
    assert answer("jobs", "cancel", job["id"])["state"] == "succeeded"
    graph = answer("graph", job["id"], "--svg", tmp_path / "graph.svg")
    assert graph["graph"]["ranking"]
    assert "<svg" in (tmp_path / "graph.svg").read_text()
    assert "scanner" in [model["name"] for model in answer("models", "list")]
    assert answer("models", "show", "scanner")["job_id"] == job["id"]
    assert answer("models", "promote", "scanner@1", "--alias", "candidate")["version"] == 1
    watched = drtl(service, "jobs", "watch", job["id"], "--json")
    assert [json.loads(line)["kind"] for line in watched.stdout.splitlines()][-1] == "succeeded"


def test_wrong_usage_ends_with_two_and_a_refusal_with_one_and_the_next_step(
    service: RunningService, folder: Path, trained: subprocess.CompletedProcess[str]
) -> None:
    for wrong in (("jobs", "create", "no-such-folder"), ("jobs", "create", folder, "-o", "colour"), ("jobs", "fly")):
        ended = drtl(service, *wrong)
        assert ended.returncode == 2
        assert not ended.stdout
    taken = drtl(service, "jobs", "create", folder, *SHORT, "--json")
    assert taken.returncode == 1
    assert not taken.stdout
    assert "--new-version" in taken.stderr
    unknown = drtl(service, "jobs", "create", folder, "-o", "colour=blue")
    assert unknown.returncode == 1
    assert "colour" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_interrupted_it_ends_with_130_and_the_job_goes_on(service: RunningService, folder: Path) -> None:
    running = subprocess.Popen(
        [*DRTL, "jobs", "create", str(folder), "--name", "interrupted", "--wait", "--scheme", "baseline"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(service),
        # Where the tests run in a shell's background, they and their children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert running.stderr is not None
    seen = ""
    while "fine tuning" not in seen:
        line = running.stderr.readline()
        assert line, seen
        seen += line
    running.send_signal(signal.SIGINT)
    rest = running.communicate(timeout=20)[1]
    assert running.returncode == 130
    assert "the job goes on; drtl jobs watch job_" in rest
    assert "Traceback" not in rest
    (job,) = [job for job in service.http.get("/v1/jobs").json()["items"] if job["name"] == "interrupted"]
    assert job["state"] == "running"
    assert drtl(service, "jobs", "cancel", job["id"]).returncode == 0


def completions(service: RunningService, *words: str) -> str:
    shell = {"_DRTL_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    # The variable's name is made of the program's.
    program = "import sys; sys.argv[0] = 'drtl'; from app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(service) | shell, check=False
    ).stdout


def test_jobs_and_models_are_completed_from_the_service(
    service: RunningService, trained: subprocess.CompletedProcess[str]
) -> None:
    job = json.loads(trained.stdout)
    assert job["id"] in completions(service, "drtl", "jobs", "show", "job_")
    assert job["dataset_id"] in completions(service, "drtl", "datasets", "delete", "ds_")
    assert "scanner" in completions(service, "drtl", "models", "show", "sc").split()
    assert "scanner@1" in completions(service, "drtl", "upscale", "--model", "scanner@").split()


# ---- deleting


def drtl_at_a_terminal(service: RunningService, says: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, asked of a person who answers it with these words."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as person, os.fdopen(theirs, "rb") as terminal:
        person.write(says.encode())
        return subprocess.run(
            [*DRTL, *arguments], stdin=terminal, capture_output=True, text=True, env=environment(service), check=False
        )


def test_what_is_deleted_is_asked_for_at_a_terminal_and_done_at_once_otherwise(
    service: RunningService, folder: Path
) -> None:
    made = drtl(service, "jobs", "create", folder, "--name", "to-delete", *SHORT, "--wait", "--json")
    assert made.returncode == 0, made.stderr
    job = json.loads(made.stdout)
    model, dataset = "to-delete@1", job["dataset_id"]
    assert drtl(service, "models", "promote", model, "--alias", "mine").returncode == 0
    assert dataset in drtl(service, "datasets", "list").stdout
    assert dataset in [each["id"] for each in json.loads(drtl(service, "datasets", "list", "--json").stdout)]

    refused = drtl(service, "jobs", "delete", job["id"])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "to-delete@1" in refused.stderr
    assert "Delete that version first" in refused.stderr
    for kind, named, asked in (
        ("models", "to-delete", "Delete to-delete with all its versions (1)?"),
        ("models", "to-delete@mine", "Delete to-delete@1?"),
        ("jobs", job["id"], f"Delete {job['id']} with its graph, preview and events?"),
        ("datasets", dataset, f"Delete {dataset} with its images?"),
    ):
        ended = drtl_at_a_terminal(service, "n\n", kind, "delete", named)
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
        assert asked in ended.stderr
    agreed = drtl_at_a_terminal(service, "y\n", "models", "delete", "to-delete@mine")
    assert agreed.returncode == 0, agreed.stderr
    assert "to-delete@1 is deleted" in agreed.stdout
    unasked = drtl_at_a_terminal(service, "", "jobs", "delete", job["id"], "--yes")
    assert (unasked.returncode, unasked.stdout, unasked.stderr) == (0, f"{job['id']} is deleted\n", "")
    by_a_program = drtl(service, "datasets", "delete", dataset)
    assert (by_a_program.returncode, by_a_program.stdout, by_a_program.stderr) == (0, f"{dataset} is deleted\n", "")
    for kind, named in (("models", "to-delete"), ("jobs", job["id"]), ("datasets", dataset)):
        again = drtl(service, kind, "delete", named)
        assert again.returncode == 1
        assert "drtl datasets list" in again.stderr

"""The command line: what it says to a person, what it sends to the service, and that it leaves nothing behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from app import demo, terminal
from app.api import examples
from app.cli import app as cli
from app.commands import graph, jobs
from app.comparison import read_rgb
from app.core.errors import PairsCause
from app.failures import NEXT_STEP_OF_PAIRS, CommandFailed, next_step
from drtl_client import Client, PairPaths
from drtl_client.errors import problem_of
from tests.drtl_client.test_answers import ELSEWHERE, giving
from tests.servers import children_of, eventually


def make_pairs(folder: Path, clean: list[str], distorted: list[str]) -> Path:
    for kind, names in (("clean", clean), ("distorted", distorted)):
        (folder / kind).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (80, 72), (90, 120, 60)).save(folder / kind / name)
    return folder


def answering(respond: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client(http=httpx.Client(base_url="http://service", transport=httpx.MockTransport(respond)))


def shown(*renderables: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(*renderables)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drtl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DRTL_")}
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        env=inherited | environment,
        check=False,
    )


# ---- what a person sees


def test_the_graph_is_a_table_ranked_by_gamma_with_the_verdict_in_words() -> None:
    text = shown(terminal.gamma_table(examples.GRAPH))
    places = [text.index(f" {name} ") for name in examples.GRAPH["graph"]["ranking"]]
    assert places == sorted(places)
    assert examples.GRAPH["graph"]["sentence"][:40] in " ".join(text.split())


def test_the_graph_of_the_whole_catalogue_fits_into_80_columns() -> None:
    catalogue = whole_catalogue()
    text = shown(terminal.gamma_table(catalogue))
    for place, name in enumerate(catalogue["graph"]["ranking"], start=1):
        assert f" {place}  {name} " in text
    assert "0.90" in text
    assert "+1.25 dB" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def whole_catalogue() -> dict[str, Any]:
    """With as many distortions as ship, and as long a name as theirs."""
    names = ["downscale_antialias", *(f"kind_{place:02}" for place in range(16))]
    facts = {"gamma": 0.9, "gamma_std": 0.07, "gain_db": 1.25, "weight": 0.2, "psnr_db": 23.7}
    target = {"id": "target", "psnr_db": 27.7, "samples": [[0, 0]]}
    nodes = [*({"id": name} | facts for name in names), target]
    return {"graph": {"target": "target", "ranking": names, "sentence": "Like all."}, "nodes": nodes}


def test_the_metrics_name_the_held_out_pairs_and_the_gain() -> None:
    text = shown(terminal.metrics_table(examples.METRICS))
    assert "009, 010" in text
    assert "+0.86 dB" in text


def test_an_infinite_psnr_is_a_dash() -> None:
    equal = examples.METRICS | {"input": {"psnr": None, "ssim": None}}
    assert "–" in shown(terminal.metrics_table(equal))


def test_the_list_of_jobs_shows_whole_ids_in_a_narrow_terminal() -> None:
    running = examples.JOB | {"state": "running", "phase": "fine_tuning", "progress": 0.456, "eta_s": 61.0}
    text = shown(terminal.jobs_table([running]), width=80)
    assert examples.JOB["id"] in text
    assert "fine tuning 46%" in text
    assert "1:01" in text


def test_a_job_that_failed_says_why() -> None:
    failed = examples.JOB | {"state": "failed", "error": {"code": "worker-lost", "message": "The worker was lost."}}
    assert "worker-lost: The worker was lost." in shown(terminal.job_panel(failed))


def test_without_a_terminal_progress_is_a_line_for_each_phase_and_tenth() -> None:
    console = Console(file=io.StringIO(), width=100)
    with terminal.progress_of(console) as show:
        for step in range(100):
            phase = "embedding" if step < 20 else "fine_tuning"
            show(phase, step / 100, 100 - step)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].split() == ["embedding", "0%", "to", "go", "1:40"]


def test_the_model_card_shows_what_matters() -> None:
    card = {"unshuffle": 2, "parameters": 683_916, "scale": 1, "licence": "CC0"} | examples.VERSION["card"]
    text = shown(terminal.card_panel(examples.VERSION | {"card": card}))
    assert examples.VERSION["name"] in text
    assert examples.VERSION["weights_sha256"][:30] in text


# ---- the command itself


def test_help_is_quick_and_loads_no_torch_and_no_image_library() -> None:
    listing = "import sys, app.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "scipy", "skimage", "ml", "worker", "fastapi"} & set(loaded.split())


def test_a_command_without_a_service_ends_with_the_next_step(tmp_path: Path) -> None:
    ended = drtl("jobs", "list", DRTL_DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert "no service runs on this machine" in ended.stderr
    assert "drtl up" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("program", ["from app.cli import main; main()", "import app.embedded"])
def test_interrupted_while_it_loads_it_ends_with_130_and_says_nothing(tmp_path: Path, program: str) -> None:
    for name in ("typer", "sqlalchemy"):  # What either loads first.
        (tmp_path / f"{name}.py").write_text(
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)"
        )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"},
        # Where the tests run in a shell's background, they and their children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("cause", "hint"),
    [
        ("names", "the same name"),
        ("count", "more pairs"),
        ("sizes", "-o fix=crop"),
        ("files", "mend these files"),
        ("rejected", "-o allow_rejects=true"),
        (None, "drtl pairs check DIR"),
        ("of a later release", "drtl pairs check DIR"),
    ],
)
def test_what_to_do_about_refused_pairs_depends_on_what_it_is_about_them(cause: str | None, hint: str) -> None:
    document = {"type": "/problems/bad-pairs", "detail": "No."} | ({} if cause is None else {"cause": cause})
    refused = problem_of(httpx.Response(422, json=document))
    assert hint in str(next_step(refused))


def test_every_cause_that_the_service_names_has_a_next_step() -> None:
    assert set(NEXT_STEP_OF_PAIRS) == {*get_args(PairsCause), None}


def test_a_folder_that_is_not_there_is_told_with_what_to_give(tmp_path: Path) -> None:
    ended = drtl("pairs", "check", str(tmp_path / "nowhere"))
    assert ended.returncode == 1
    assert (
        ended.stderr
        == f"error: there is no folder {tmp_path}/nowhere\nnext:  give the folder that holds clean/ and distorted/\n"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("webhooks", "delete", ""), "There is no webhook ''."),
        (("jobs", "show", ""), "There is no job ''."),
        (("models", "show", "."), "There is no model '.'."),
        (("models", "show", "my-pairs/versions/1"), "There is no model 'my-pairs/versions/1'."),
        (("jobs", "list", "--key", "ü"), "the key holds 'ü'"),
        (("jobs", "list", "--url", "foo"), "'foo' is no address of a service"),
    ],
)
def test_what_cannot_be_asked_for_is_told_in_a_line_and_not_asked_for(
    arguments: tuple[str, ...], complaint: str
) -> None:
    ended = drtl(*arguments, DRTL_URL="http://127.0.0.1:9")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {complaint}")
    assert "Traceback" not in ended.stderr
    assert "does not answer" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "list"),
        ("jobs", "watch", "job_1"),
        ("jobs", "watch", "job_1", "--json"),
        ("webhooks", "delete", "wh_1"),
    ],
)
def test_a_redirect_is_told_with_the_address_that_it_points_to(arguments: tuple[str, ...]) -> None:
    with giving(307, Location=ELSEWHERE) as (url, _):
        ended = drtl(*arguments, "--url", url)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: HTTP 307 Temporary Redirect, which points to {ELSEWHERE}")
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_a_graph_that_cannot_be_drawn_into_a_file_is_still_shown(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        drawn = request.headers["Accept"] == "image/svg+xml"
        return httpx.Response(200, content=b"<svg/>") if drawn else httpx.Response(200, json=examples.GRAPH)

    monkeypatch.setattr(graph, "connect", lambda *_: answering(respond))
    command = ["graph", "job_1", *(["--json"] if as_json else []), "--svg"]
    ended = CliRunner().invoke(cli, [*command, str(tmp_path / "nope/x.svg")])
    assert isinstance(ended.exception, CommandFailed)
    assert str(ended.exception) == f"{tmp_path}/nope/x.svg cannot be written: No such file or directory"
    assert examples.GRAPH["graph"]["ranking"][0] in ended.stdout
    ended = CliRunner().invoke(cli, [*command, str(tmp_path / "x.svg")])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "x.svg").read_bytes() == b"<svg/>"


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "0a1b2c3d4e5f")])
def test_keys_are_not_looked_for_where_there_is_no_database(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = drtl("keys", *arguments, "--data-dir", str(tmp_path / "mistyped"))
    assert ended.returncode == 1
    assert f"there is no database in {tmp_path / 'mistyped'}" in ended.stderr
    assert not ended.stdout
    assert not list(tmp_path.iterdir())


def test_a_key_lasts_for_a_century_at_most(tmp_path: Path) -> None:
    command = ["keys", "create", "--name", "lab", "--data-dir", str(tmp_path / "new"), "--json", "--expires"]
    refused = CliRunner().invoke(cli, [*command, "99999999"])
    assert refused.exit_code == 2
    assert "36500" in refused.output
    assert not list(tmp_path.iterdir())
    made = CliRunner().invoke(cli, [*command, "36500"])
    assert made.exit_code == 0, made.output
    assert datetime.fromisoformat(json.loads(made.stdout)["expires_at"]).year > 2100


def posted(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, str]:
    """The options of the job that `drtl jobs create` asks for, as fields of its form."""
    fields: dict[str, str] = {}

    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            message = message_from_bytes(
                f"Content-Type: {request.headers['Content-Type']}\n\n".encode() + request.read()
            )
            parts = message.get_payload()
            assert isinstance(parts, list)
            for part in parts:
                assert isinstance(part, Message)
                if part.get_filename() is None:
                    name, content = part.get_param("name", header="Content-Disposition"), part.get_payload(decode=True)
                    assert isinstance(name, str)
                    assert isinstance(content, bytes)
                    fields[name] = content.decode()
            return httpx.Response(202, json=examples.JOB)
        return httpx.Response(200, json=examples.DATASET)

    monkeypatch.setattr(jobs, "connect", lambda *_: answering(respond))
    ended = CliRunner().invoke(cli, ["jobs", "create", str(folder), *arguments])
    assert ended.exit_code == 0, ended.output
    return fields


@pytest.fixture
def a_pair(tmp_path: Path) -> Path:
    return make_pairs(tmp_path / "my-pairs", ["a.png"], ["a.png"])


DEFAULTS = {"preset": "quick", "scheme": "auto", "backbone": "vdsr", "init": "prior", "seed": "0"}


@pytest.mark.parametrize(
    ("option", "by_name", "by_flag"),
    [
        ("preset", "standard", ("--preset", "standard")),
        ("seed", "3", ("--seed", "3")),
        ("name", "scanner", ("--name", "scanner")),
        ("new_version", "true", ("--new-version",)),
        ("backbone", "rcan", ("--backbone", "rcan")),
        ("unshuffle", "2", ("--unshuffle", "2")),
        ("priority", "high", ("--priority", "high")),
    ],
)
def test_an_option_of_a_job_is_the_same_by_its_flag_by_its_name_and_by_both(
    option: str, by_name: str, by_flag: tuple[str, ...], a_pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = DEFAULTS | {"name": "my-pairs", "new_version": "false"} | {option: by_name}
    named = ("-o", f"{option}={by_name}")
    for arguments in (by_flag, named, (*named, *named), (*named, *by_flag)):
        assert posted(monkeypatch, a_pair, *arguments) == expected


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("preset", ("--preset", "quick", "-o", "preset=standard")),
        ("priority", ("--priority", "normal", "-o", "priority=high")),
        ("seed", ("-o", "seed=1", "--seed", "2")),
        ("new_version", ("--new-version", "-o", "new_version=false")),
        ("finetune_steps", ("-o", "finetune_steps=1", "-o", "finetune_steps=2")),
        ("pairs", ("-o", "pairs=other")),
        ("on_upload", ("-o", "on_upload=x")),
    ],
)
def test_an_option_of_a_job_that_is_given_twice_or_is_none_is_a_usage_error(
    option: str, arguments: tuple[str, ...], a_pair: Path
) -> None:
    ended = CliRunner().invoke(cli, ["jobs", "create", str(a_pair), "--url", "http://127.0.0.1:9", *arguments])
    assert ended.exit_code == 2, ended.output
    assert option in ended.output


@pytest.mark.parametrize("command", ["train", "extend", "pretrain", "measure"])
def test_arguments_of_the_prior_s_commands_are_passed_on(command: str) -> None:
    ended = drtl("prior", command, "--help")
    assert ended.returncode == 0
    assert "--clean" in ended.stdout


# ---- the demo


def test_of_a_folder_with_train_and_test_the_one_is_trained_on_and_the_other_shown(tmp_path: Path) -> None:
    make_pairs(tmp_path / "set" / "train", ["a.png", "b.png"], ["a.png", "b.png"])
    make_pairs(tmp_path / "set" / "test", ["c.png", "d.png"], ["c.png", "d.png"])
    material = demo.demo_material(tmp_path / "set", tmp_path)
    assert [pair.name for pair in material.pairs] == ["a", "b"]
    assert material.unseen.name == "c"
    assert material.name == "set"


def test_the_last_pair_by_name_is_kept_aside(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    material = demo.demo_material(make_pairs(tmp_path / "My Pairs", names, names), tmp_path)
    assert [pair.name for pair in material.pairs] == ["a", "b"]
    assert material.unseen.name == "c"
    assert material.name == "my-pairs"


def test_too_few_pairs_for_the_demo_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="has 2 pairs; the demo needs 3"):
        demo.demo_material(make_pairs(tmp_path, ["a.png", "b.png"], ["a.png", "b.png"]), tmp_path)


def test_the_end_of_a_log_is_shown_and_an_absent_one_is_nothing(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert demo.log_tail(log) == ""
    log.write_text("\n".join(str(line) for line in range(100)))
    assert demo.log_tail(log).splitlines()[0] == "--- the end of worker.log"
    assert demo.log_tail(log).splitlines()[-1] == "99"


def test_a_service_that_cannot_start_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "OTHER_SERVICE", frozenset())
    monkeypatch.setenv("DRTL_HOST", "203.0.113.1")  # Reserved for documentation: not an address of this machine.
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(CommandFailed, match=r"ended with code(.|\n)*Cannot listen on 203\.0\.113\.1"):
        demo.run_demo(console, None, tmp_path / "out", "quick")


KEEPS_WHAT_IT_HAS = """
import time
try:
    print("works", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.6)
    print("kept", flush=True)
    raise SystemExit(130)
"""


def test_a_benchmark_that_is_interrupted_has_time_to_keep_what_it_has() -> None:
    parent = "import sys, typer; from app.commands.service import run_child; app = typer.Typer(add_completion=False)\n"
    parent += "@app.command()\ndef run(): run_child('-c', sys.argv[1])\nsys.exit(app([]))"
    running = subprocess.Popen(
        [sys.executable, "-c", parent, KEEPS_WHAT_IT_HAS],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - in a shell's background SIGINT is ignored
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "works\n"
    os.killpg(running.pid, signal.SIGINT)  # As a terminal does: the whole group hears of Ctrl-C.
    assert running.communicate(timeout=20)[0] == "kept\n"
    assert running.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing_running(tmp_path: Path, number: int) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    names = ["a.png", "b.png", "c.png"]
    pairs = make_pairs(tmp_path / "pairs", names, names)
    command = [
        sys.executable,
        "-u",
        "-c",
        "from app.cli import main; main()",
        "demo",
        "--pairs",
        str(pairs),
        "--output",
        str(tmp_path / "out"),
    ]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # Where the tests run in a shell's background, they and their children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert running.stdout is not None
        for line in running.stdout:
            if "is ready" in line:
                break
        (service,) = children_of(running.pid)
        started = [service, *children_of(service)]
        assert len(started) > 4
        running.send_signal(number)
        rest = running.communicate(timeout=40)[0]
    finally:
        for pid in children_of(running.pid):
            os.kill(pid, signal.SIGTERM)  # Only where the test fails.
        running.kill()
    assert "stopped, with all its processes" in rest
    assert running.returncode not in (0, None)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), what="every process ends")
    assert not list(tmp_path.glob("drtl-demo-*"))


def test_the_unseen_image_is_restored_over_http_and_drawn_beside_input_and_clean(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path, ["a.png"], ["a.png"])
    clean = Image.effect_noise((80, 72), 60).convert("RGB")
    clean.save(folder / "clean/a.png")
    clean.resize((40, 36)).save(folder / "distorted/a.png")  # Of half the size: drawn at the size of the clean one.
    unseen = PairPaths("a", folder / "clean/a.png", folder / "distorted/a.png")

    def respond(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/models/x@1/super-resolve"
        assert unseen.distorted.read_bytes() in request.read()
        return httpx.Response(200, content=unseen.clean.read_bytes())

    began = time.monotonic()
    restored = demo.restore_unseen(answering(respond), "x@1", unseen, tmp_path)
    assert restored.seconds <= time.monotonic() - began
    assert restored.result.ssim == pytest.approx(1.0)
    assert restored.input.psnr < 30
    assert (tmp_path / "result.png").read_bytes() == unseen.clean.read_bytes()
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > 3 * 80


def test_a_clean_image_that_cannot_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(CommandFailed, match=r"a\.png cannot be read as an image"):
        read_rgb(tmp_path / "a.png")

"""`drtl upscale`: which files it means, what it never does to them, and that it needs no service."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from app.api.schemas.restoring import RestoreOptions
from app.cli import app as cli
from app.commands import upscale
from app.core.settings import Settings
from app.image_files import Task, plan
from app.main import create_app
from app.upscaling import (
    LARGEST_OUTSCALE_OF_A_SERVICE,
    Event,
    Failed,
    Options,
    Progress,
    Restored,
    is_model_file,
    restore_by_service,
    restore_here,
)
from drtl_client import Client
from drtl_client.errors import NotFound
from tests.app.conftest import connected
from tests.app.test_models import Register, register
from tests.app.test_super_resolution import worker
from tests.drtl_client.test_answers import ELSEWHERE, giving
from tests.servers import children_of

__all__ = ["register", "worker"]  # Fixtures of other tests.

ROOT = Path(__file__).parents[2]


def image(path: Path, size: tuple[int, int] = (31, 37)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that returns its input."""
    from ml.backbones import build  # Here, because other tests must be the first to import `ml`.
    from ml.model_file import pack

    path = tmp_path_factory.mktemp("model") / "identity.safetensors"
    path.write_bytes(pack(build("vdsr", 2, 0), {"backbone": "vdsr", "unshuffle": 2, "scale": 1}))
    return path


def drtl(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, where no service runs or is named."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DRTL_")}
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "upscale", *arguments],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": str(ROOT), "DRTL_DATA_DIR": str(cwd / "nothing-here")},
        capture_output=True,
        text=True,
        check=False,
    )


# ---- which files


def test_a_folder_means_its_images_at_any_depth_and_keeps_their_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.tiff", "notes.txt", ".hidden.png", ".git/d.png"):
        image(tmp_path / "in" / name) if Path(name).suffix != ".txt" else (tmp_path / "in" / name).write_text("")
    made = plan([tmp_path / "in"], tmp_path / "out", "png")
    assert [task.target.relative_to(tmp_path / "out") for task in made.tasks] == [
        Path("in/a.restored.png"),
        Path("in/b.restored.png"),
        Path("in/deep/er/c.restored.png"),
    ]
    assert [left.source.name for left in made.skipped] == ["notes.txt"]
    assert not made.refused


def test_images_of_a_folder_in_formats_that_are_not_read_are_told_what_they_are(tmp_path: Path) -> None:
    for name in ("a.heic", "b.NEF", "c.txt", "d.gif"):
        (tmp_path / name).write_bytes(b"")
    told = {left.source.name: left.reason for left in plan([tmp_path], tmp_path / "out", "png").skipped}
    assert told == {
        "a.heic": "HEIC is not a format that is read; convert it to PNG, TIFF or JPEG",
        "b.NEF": "NEF is not a format that is read; convert it to PNG, TIFF or JPEG",
        "c.txt": "no image, by its name",
        "d.gif": "GIF is not a format that is read; convert it to PNG, TIFF or JPEG",
    }


def test_a_file_that_is_given_is_taken_whatever_its_name(tmp_path: Path) -> None:
    made = plan([image(tmp_path / "a.restored.png")], tmp_path, "jpg")
    assert made.tasks == [Task(tmp_path / "a.restored.png", tmp_path / "a.restored.restored.jpg")]


def test_results_of_an_earlier_run_are_neither_restored_nor_replaced(tmp_path: Path) -> None:
    image(tmp_path / "in/a.png")
    image(tmp_path / "in/a.restored.png")
    made = plan([tmp_path / "in"], tmp_path, "png")
    assert not made.tasks
    assert [left.source.name for left in made.skipped] == ["a.restored.png", "a.png"]
    again = plan([tmp_path / "in"], tmp_path, "png", overwrite=True)
    assert again.tasks == [Task(tmp_path / "in/a.png", tmp_path / "in/a.restored.png")]


def test_files_of_one_stem_keep_their_suffixes_apart(tmp_path: Path) -> None:
    made = plan([image(tmp_path / "a.png"), image(tmp_path / "a.jpg")], tmp_path, "png")
    assert [task.target.name for task in made.tasks] == ["a.png.restored.png", "a.jpg.restored.png"]


def test_two_results_never_share_a_file(tmp_path: Path) -> None:
    made = plan([image(tmp_path / "x/a.png"), image(tmp_path / "y/a.png")], tmp_path, "png")
    assert len(made.tasks) == 1
    assert [left.source for left in made.refused] == [tmp_path / "y/a.png"]


def test_an_input_is_never_the_target_of_another_even_with_overwrite(tmp_path: Path) -> None:
    inputs = [image(tmp_path / "a.png"), image(tmp_path / "a.restored.png")]
    made = plan(inputs, tmp_path, "png", overwrite=True)
    assert [task.source for task in made.tasks] == [inputs[1]]
    assert [left.source for left in made.refused] == [inputs[0]]


def test_a_file_that_is_given_twice_is_restored_once(tmp_path: Path) -> None:
    file = image(tmp_path / "in/a.png")
    (tmp_path / "link.png").symlink_to(file)
    assert len(plan([file, tmp_path / "in", tmp_path / "link.png"], tmp_path, "png").tasks) == 1


@given(st.lists(st.from_regex(r"(x|y)?/?[ab](\.restored)?\.(png|jpg)", fullmatch=True), max_size=6), st.booleans())
def test_whatever_is_given_no_result_lands_on_an_input_or_on_another_result(names: list[str], overwrite: bool) -> None:
    inputs = [Path("/nowhere") / name.strip("/") for name in names]
    made = plan(inputs, Path("/nowhere"), "png", overwrite=overwrite)
    targets = [task.target for task in made.tasks]
    assert len(set(targets)) == len(targets)
    assert not set(targets) & set(inputs)
    assert {task.source for task in made.tasks} | {left.source for left in made.refused} == set(inputs)


def test_a_path_to_a_model_is_told_from_a_name() -> None:
    assert is_model_file("scanner-v1.safetensors")
    assert is_model_file("models/scanner")
    assert not any(is_model_file(name) for name in ("scanner", "scanner@production", "scanner@3", "my.scanner"))


# ---- with no service


def test_without_a_service_a_model_file_restores_files_and_folders(tmp_path: Path, model_file: Path) -> None:
    lone, deep = image(tmp_path / "lone.png"), image(tmp_path / "in/deep/b.png", (5, 3))
    before = lone.read_bytes()
    ended = drtl("lone.png", "in", "--model", model_file, "--output", "out", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for source, result in ((lone, "out/lone.restored.png"), (deep, "out/in/deep/b.restored.png")):
        with Image.open(source) as one, Image.open(tmp_path / result) as other:
            assert one.tobytes() == other.tobytes()
    assert lone.read_bytes() == before
    assert ended.stdout.splitlines() == [
        "lone.png → out/lone.restored.png",
        "in/deep/b.png → out/in/deep/b.restored.png",
    ]
    assert "2 restored, 0 skipped, 0 failed" in ended.stderr
    assert not list(tmp_path.rglob("*.part"))
    kept = drtl("lone.png", "in", "--model", model_file, "--output", "out", cwd=tmp_path)
    assert kept.returncode == 0
    assert "0 restored, 2 skipped" in kept.stderr


def test_one_bad_image_fails_by_name_and_the_others_are_restored(tmp_path: Path, model_file: Path) -> None:
    image(tmp_path / "in/a.png")
    (tmp_path / "in/broken.png").write_bytes(image(tmp_path / "in/c.png").read_bytes()[:300])
    (tmp_path / "in/text.txt").write_text("text")
    ended = drtl("in", "--model", model_file, "--format", "jpeg", "--json", cwd=tmp_path)
    assert ended.returncode == 1
    summary = json.loads(ended.stdout)
    assert [Path(done["target"]).name for done in summary["restored"]] == ["a.restored.jpg", "c.restored.jpg"]
    assert [(done["width"], done["height"]) for done in summary["restored"]] == [(31, 37), (31, 37)]
    assert [Path(left["source"]).name for left in summary["failed"]] == ["broken.png"]
    assert [Path(left["source"]).name for left in summary["skipped"]] == ["text.txt"]
    assert "broken.png" in ended.stderr
    with Image.open(tmp_path / "in/a.restored.jpg") as result:
        assert result.format == "JPEG"
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == [
        "a.png",
        "a.restored.jpg",
        "broken.png",
        "c.png",
        "c.restored.jpg",
        "text.txt",
    ]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [("absent.safetensors", "does not exist"), ("bad.safetensors", "not a model of ours"), ("name", "no service runs")],
)
def test_a_model_that_cannot_be_used_is_told_in_a_line(tmp_path: Path, model: str, complaint: str) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "bad.safetensors").write_bytes(b"no model")
    ended = drtl("a.png", "--model", model, cwd=tmp_path)
    assert ended.returncode == 1
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "a.restored.png").exists()


@pytest.mark.parametrize(("model", "is_there"), [("m.onnx", True), ("./M.ONNX", True), ("models/m.onnx", False)])
def test_a_model_for_other_runtimes_is_told_with_what_to_get_instead(
    tmp_path: Path, model: str, is_there: bool
) -> None:
    image(tmp_path / "a.png")
    if is_there:
        (tmp_path / model).write_bytes(b"onnx")
    ended = drtl("a.png", "--model", model, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {model} is a model for other runtimes")
    assert ".safetensors" in ended.stderr
    assert "drtl models download NAME" in ended.stderr


def test_a_registered_model_may_have_the_name_of_a_file(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    assert "no service runs" in drtl("a.png", "--model", "my.onnx", cwd=tmp_path).stderr


def test_a_folder_without_images_is_an_error_only_where_nothing_was_found(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "in").mkdir()
    ended = drtl("in", "--model", model_file, cwd=tmp_path)
    assert ended.returncode == 1
    assert "there is no image in in" in ended.stderr


def test_files_of_the_user_that_are_named_like_ours_are_not_run(tmp_path: Path, model_file: Path) -> None:
    image(tmp_path / "a.png")
    for name in ("ml.py", "torch.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('hijacked')")
    events = restored_here(tmp_path, model_file, [Task(tmp_path / "a.png", tmp_path / "a.restored.png")])
    assert isinstance(events[-1], Restored)


def restored_here(cwd: Path, model: Path, tasks: list[Task], output: str = "png") -> list[Event]:
    events: list[Event] = []
    before = Path.cwd()
    os.chdir(cwd)
    try:
        restore_here(model, tasks, Options(output), events.append)
    finally:
        os.chdir(before)
    return events


def test_progress_rises_from_0_to_1_and_every_task_ends(tmp_path: Path, model_file: Path) -> None:
    tasks = [Task(image(tmp_path / f"{name}.png"), tmp_path / f"{name}.out.png") for name in "abc"]
    (tmp_path / "b.png").write_text("no image")
    events = restored_here(tmp_path, model_file, tasks)
    for task in tasks:
        *shares, end = [event for event in events if event.task == task]
        assert isinstance(end, Failed if task.source.stem == "b" else Restored)
        risen = [event.share for event in shares]  # type: ignore[union-attr]  # Another kind has none, and fails.
        assert risen == sorted(risen)
        assert risen[0] == 0
        if isinstance(end, Restored):
            assert risen[-1] == 1


def test_stopped_in_the_middle_of_an_image_it_leaves_no_part_of_a_result_and_no_process(
    tmp_path: Path, model_file: Path
) -> None:
    task = Task(image(tmp_path / "a.png", (1600, 800)), tmp_path / "a.out.png")  # Three tiles.
    started = set(children_of(os.getpid()))

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.share > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_here(model_file, [task], Options(), stop)
    assert set(children_of(os.getpid())) == started
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_impossible_option_fails_each_image_with_the_reason(tmp_path: Path, model_file: Path) -> None:
    task = Task(image(tmp_path / "a.png"), tmp_path / "a.out.png")
    *_, end = restored_here(tmp_path, model_file, [task], "gif")
    assert isinstance(end, Failed)
    assert "gif" in end.reason


def test_a_process_that_dies_fails_what_is_left(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Task(image(tmp_path / f"{name}.png"), tmp_path / f"{name}.out.png") for name in "ab"]
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.exit('out of luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    events = restored_here(tmp_path, model_file, tasks)
    assert [type(event) for event in events] == [Failed, Failed]
    assert "out of luck" in str(events[0])


# ---- by a service


@pytest.mark.usefixtures("worker")
def test_a_service_restores_file_after_file(client: httpx.Client, register: Register, tmp_path: Path) -> None:
    register()
    tasks = [Task(image(tmp_path / f"{name}.png"), tmp_path / f"out/{name}.png") for name in "ab"]
    tasks.insert(1, Task(tmp_path / "broken.png", tmp_path / "out/broken.png"))
    tasks[1].source.write_bytes(b"no image")
    events: list[Any] = []
    with Client(str(client.base_url)) as service:
        restore_by_service(service, "scanner", tasks, Options(), events.append)
        ends = [event for event in events if isinstance(event, Restored | Failed)]
        assert [type(end) for end in ends] == [Restored, Failed, Restored]
        assert isinstance(ends[0], Restored)
        assert ends[0].facts["model"] == "scanner@1"
        with pytest.raises(NotFound, match="nobody"):
            restore_by_service(service, "nobody", tasks, Options(), events.append)
    with Image.open(tasks[0].source) as before, Image.open(tasks[0].target) as after:
        assert before.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes() == after.tobytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_a_refusal_by_the_service_is_told_once_and_in_a_line(
    client: httpx.Client, register: Register, tmp_path: Path
) -> None:
    register()
    (tmp_path / "broken.png").write_bytes(b"no image")
    command = ["upscale", str(tmp_path / "broken.png"), "--model", "scanner", "--output", str(tmp_path)]
    ended = CliRunner().invoke(cli, [*command, "--url", str(client.base_url), "--json"])
    assert ended.exit_code == 1
    (failed,) = json.loads(ended.stdout)["failed"]
    sent = client.post("/v1/models/scanner/super-resolve", files={"image": ("broken.png", b"no image")})
    assert failed["reason"] == sent.json()["detail"]
    assert "\n" not in failed["reason"]


def test_what_stands_before_the_service_makes_no_results(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    with giving(302, Location=ELSEWHERE) as (url, _):
        ended = drtl("a.png", "--model", "scanner", "--url", url, cwd=tmp_path)
    assert ended.returncode == 1
    assert f"HTTP 302 Found, which points to {ELSEWHERE}" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_service_is_asked_for_no_larger_size_than_it_makes(tmp_path: Path, model_file: Path) -> None:
    assert RestoreOptions(outscale=LARGEST_OUTSCALE_OF_A_SERVICE).outscale == LARGEST_OUTSCALE_OF_A_SERVICE
    with pytest.raises(ValidationError):
        RestoreOptions(outscale=LARGEST_OUTSCALE_OF_A_SERVICE + 0.01)
    command = ["upscale", str(image(tmp_path / "a.png", (5, 3))), "--output", str(tmp_path)]
    ended = CliRunner().invoke(
        cli, [*command, "--outscale", "8.5", "--model", "scanner", "--url", "http://127.0.0.1:9"]
    )
    assert ended.exit_code == 2
    assert "by a service it is at most 8" in " ".join(ended.output.replace("│", " ").split())
    ended = CliRunner().invoke(cli, [*command, "--outscale", "16", "--model", str(model_file)])
    assert ended.exit_code == 0, ended.output
    with Image.open(tmp_path / "a.restored.png") as result:
        assert result.size == (80, 48)


def test_a_service_that_goes_away_fails_what_is_left(tmp_path: Path) -> None:
    tasks = [Task(image(tmp_path / f"{name}.png"), tmp_path / f"{name}.out.png") for name in "ab"]
    events: list[Any] = []
    with Client("http://127.0.0.1:9") as service:
        restore_by_service(service, "scanner", tasks, Options(), events.append)
    assert [event.task for event in events if isinstance(event, Failed)] == tasks
    assert not list(tmp_path.glob("*.out.png"))


def test_a_quota_that_is_used_up_ends_the_run_and_says_what_is_left_and_when_to_go_on(
    tmp_path: Path, answering: Callable[..., Client]
) -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) == 1:
            return httpx.Response(200, content=b"image")
        refusal = {"type": "/problems/quota-exhausted", "detail": "100 megapixels are used up."}
        return httpx.Response(429, json=refusal, headers={"Retry-After": "7200"})

    tasks = [Task(image(tmp_path / f"{name}.png"), tmp_path / f"{name}.out.png") for name in "abcd"]
    events: list[Any] = []
    before = datetime.now().astimezone()
    restore_by_service(answering(respond), "scanner", tasks, Options(), events.append)
    assert len(asked) == 2
    left = [event for event in events if isinstance(event, Failed)]
    assert [event.task for event in left] == tasks[1:]
    times = {f"{before + timedelta(hours=2, minutes=later):%Y-%m-%d %H:%M}" for later in (0, 1)}
    for event in left:
        assert event.reason.startswith("100 megapixels are used up. ")
        assert any(time in event.reason for time in times)


def test_a_model_is_resolved_as_super_resolution_would(api_settings: Settings, register: Register) -> None:
    register(versions=3, production=2)
    register("unpromoted", production=None)
    with connected(create_app(api_settings)) as client, Client(str(client.base_url)) as service:
        found = [service.models[name].number() for name in ("scanner", "scanner@production", "scanner@3")]
        assert found == [2, 2, 3]
        for reference, complaint in (("scanner@beta", "no alias 'beta'"), ("unpromoted", "no version in production")):
            with pytest.raises(NotFound, match=complaint):
                service.models[reference].number()


def test_an_image_that_the_model_is_not_made_for_is_told(
    tmp_path: Path, answering: Callable[..., Client], capsys: pytest.CaptureFixture[str]
) -> None:
    words = iter(["far", "near", None])

    def respond(request: httpx.Request) -> httpx.Response:
        request.read()
        word = next(words)
        told = {} if word is None else {"X-DRTL-Match": "0.000", "X-DRTL-Match-Word": word}
        return httpx.Response(200, content=b"image", headers=told)

    tasks = [Task(image(tmp_path / f"{name}.png"), tmp_path / f"{name}.out.png") for name in "abc"]
    report = upscale.Report([], [], quiet=False)

    def tell(event: Event) -> None:
        if isinstance(event, Restored):
            report.finish(event)

    restore_by_service(answering(respond), "scanner", tasks, Options(), tell)
    report.close("scanner", as_json=False)
    said = capsys.readouterr().err
    assert said.count("do not rely on its result") == 1
    assert "a.png: the model was trained on images that are distorted otherwise" in said
    assert "3 restored (1 not to be relied on), 0 skipped, 0 failed" in said
    report.close("scanner", as_json=True)
    done = json.loads(capsys.readouterr().out)["restored"]
    assert [(each["match"], each["match_word"]) for each in done] == [(0.0, "far"), (0.0, "near"), (None, None)]


def test_options_reach_the_service_as_a_query_and_only_where_they_are_chosen(
    tmp_path: Path, answering: Callable[..., Client]
) -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        request.read()
        asked.append(request)
        return httpx.Response(200, content=b"image")

    task = Task(image(tmp_path / "a.png"), tmp_path / "a.out.webp")
    for options in (Options(), Options("webp", "fp32", 1.5, 8, "strip")):
        restore_by_service(answering(respond), "scanner", [task], options, lambda event: None)
    plain, chosen = asked
    assert not plain.url.query
    assert plain.headers["accept"] == "image/png"
    assert dict(chosen.url.params) == {"precision": "fp32", "outscale": "1.5", "ensemble": "8", "metadata": "strip"}
    assert chosen.headers["accept"] == "image/webp"
    assert task.source.read_bytes() in chosen.read()


@pytest.fixture
def answering() -> Callable[..., Client]:
    """A client whose service answers as the test says."""

    def make(respond: Callable[[httpx.Request], httpx.Response]) -> Client:
        return Client(http=httpx.Client(base_url="http://service", transport=httpx.MockTransport(respond)))

    return make

"""The pair doctor over HTTP and as a command: reports, fixes, and jobs that refuse what cannot be trained on."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner, Result

from app.cli import app as cli
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.tables import Pair
from app.failures import CommandFailed
from tests.app.conftest import problem
from tests.app.material import Files, encoded, noisy, pair_files, pixels


def shifted_files(count: int = 2) -> Files:
    """Pairs whose distorted image lies 3 px to the left and 5 px down."""
    files: Files = []
    for number in range(count):
        scene = pixels(150, 140, seed=number)
        files.append(("clean", (f"{number}.png", encoded(scene[10:110, 10:130]))))
        files.append(("distorted", (f"{number}.png", encoded(noisy(scene)[5:105, 13:133]))))
    return files


def swapped_files() -> Files:
    other = {"clean": "distorted", "distorted": "clean"}
    files: Files = []
    for number in range(2):
        scene = np.asarray(Image.fromarray(pixels(60, 50, seed=number)).resize((180, 150), Image.Resampling.LANCZOS))
        files += [
            ("clean", (f"{number}.png", encoded(scene))),
            ("distorted", (f"{number}.png", encoded(noisy(scene, 25)))),
        ]
    return [(other[side], file) for side, file in files]


def created(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("how", ["query", "form"])
@pytest.mark.parametrize("fix", ["align", "crop"])
def test_a_shifted_pair_is_stored_aligned_on_request(
    client: httpx.Client, rows: sessionmaker[Session], api_settings: Settings, fix: str, how: str
) -> None:
    files = shifted_files()
    where: dict[str, Any] = {"params": {"fix": fix}} if how == "query" else {"data": {"fix": fix}}
    dataset = created(client.post("/v1/datasets", files=files, **where))
    pair = dataset["pairs"][0]
    assert pair["verdict"] == "good"
    assert pair["fixed"]["applied"] == [fix]
    assert pair["fixed"]["before"]["verdict"] == "fixable"
    assert pair["psnr_db"] > pair["fixed"]["before"]["psnr_db"] + 3
    assert pair["fixed"]["before"]["shift_px"]["y"] == pytest.approx(5, abs=0.1)
    assert (pair["clean"]["width"], pair["clean"]["height"]) == (117, 95)
    originals = [hashlib.sha256(content).hexdigest() for _, (_, content) in files[:2]]
    assert list(pair["fixed"]["originals"].values()) == originals
    assert dataset["summary"] == "All 2 pairs are good."
    assert client.get(f"/v1/datasets/{dataset['id']}").json() == dataset
    assert api_settings.blob_dir is not None
    with (
        rows() as session,
        FolderStorage(api_settings.blob_dir).open(
            session.scalars(select(Pair).order_by(Pair.position)).all()[0].distorted_blob
        ) as file,
    ):
        stored = np.asarray(Image.open(file))
    with Image.open(io.BytesIO(files[1][1][1])) as sent:
        assert np.array_equal(stored, np.asarray(sent)[5:, :-3])  # Cut, and otherwise as it came.


def test_a_pair_that_needs_nothing_is_stored_as_it_came(client: httpx.Client) -> None:
    dataset = created(client.post("/v1/datasets", files=pair_files(2), params={"fix": "align,match_colour,crop,swap"}))
    assert [pair["fixed"] for pair in dataset["pairs"]] == [None, None]
    assert dataset["pairs"][0]["distorted"]["format"] == "JPEG"


def test_exposure_is_matched_to_the_distorted_image(client: httpx.Client) -> None:
    files: Files = []
    for number in range(2):
        clean = (pixels(150, 140, seed=number) * 0.9).astype(np.uint8)
        files.append(("clean", (f"{number}.png", encoded(clean))))
        files.append(("distorted", (f"{number}.png", encoded(noisy((clean * 0.8).astype(np.uint8))))))
    before = created(client.post("/v1/datasets", files=files))
    assert before["pairs"][0]["gain"] == pytest.approx([0.8] * 3, abs=0.03)
    assert "What mends them: fix=match_colour." in before["summary"]
    after = created(client.post("/v1/datasets", files=files, params={"fix": "match_colour"}))["pairs"][0]
    assert after["gain"] == pytest.approx([1.0] * 3, abs=0.03)
    assert after["psnr_db"] > before["pairs"][0]["psnr_db"] + 3


def test_unequal_sizes_are_refused_unless_they_may_be_cropped(client: httpx.Client) -> None:
    files: Files = []
    for number in range(2):
        scene = pixels(150, 140, seed=number)
        files.append(("clean", (f"{number}.png", encoded(scene))))
        files.append(("distorted", (f"{number}.png", encoded(noisy(scene)[4:, :-7]))))
    problem(client.post("/v1/datasets", files=files), 422, "bad-pairs")
    pair = created(client.post("/v1/datasets", files=files, params={"fix": "crop"}))["pairs"][0]
    assert pair["fixed"]["applied"] == ["crop"]
    assert pair["shift_px"] == {"x": pytest.approx(0, abs=0.1), "y": pytest.approx(0, abs=0.1)}
    assert pair["clean"]["height"] > 130
    assert pair["psnr_db"] > 27


def test_swapped_sides_are_rejected_and_put_right_on_request(client: httpx.Client) -> None:
    dataset = created(client.post("/v1/datasets", files=swapped_files()))
    assert dataset["pairs"][0]["findings"][0]["code"] == "swapped"
    document = problem(client.post("/v1/jobs", files=swapped_files(), data={"name": "s"}), 422, "bad-pairs")
    assert [file["name"] for file in document["files"]] == ["0", "1"]
    answer = client.post("/v1/jobs", files=swapped_files(), data={"name": "s", "fix": "swap"})
    assert answer.status_code == 202, answer.text
    mended = client.get(f"/v1/datasets/{answer.json()['dataset_id']}").json()["pairs"][0]
    assert (mended["sharpness"]["order"], mended["fixed"]["applied"]) == ("right", ["swap"])


def test_a_job_on_rejected_pairs_is_refused_unless_insisted_on(client: httpx.Client) -> None:
    same = encoded(pixels(seed=9))
    files: Files = [*pair_files(2), ("clean", ("same.png", same)), ("distorted", ("same.png", same))]
    document = problem(client.post("/v1/jobs", files=files, data={"name": "a"}), 422, "bad-pairs")
    assert [file["name"] for file in document["files"]] == ["same"]
    dataset = created(client.post("/v1/datasets", files=files))
    assert dataset["summary"] == "Of 3 pairs 2 are good and 1 cannot be trained on."
    body = {"name": "b", "dataset_id": dataset["id"]}
    problem(client.post("/v1/jobs", json=body), 422, "bad-pairs")
    assert client.post("/v1/jobs", json=body | {"allow_rejects": True}).status_code == 202
    assert client.post("/v1/jobs", files=files, data={"name": "a", "allow_rejects": "true"}).status_code == 202


def test_a_stored_dataset_cannot_be_mended_any_more(client: httpx.Client) -> None:
    dataset = created(client.post("/v1/datasets", files=shifted_files()))
    body = {"name": "b", "dataset_id": dataset["id"], "fix": ["align"]}
    assert problem(client.post("/v1/jobs", json=body), 422, "unprocessable")["pointer"] == "/fix"


def test_an_unknown_fix_is_refused(client: httpx.Client) -> None:
    problem(client.post("/v1/datasets", files=pair_files(2), params={"fix": "sharpen"}), 422, "unprocessable")


def test_pairs_of_one_scene_are_told(client: httpx.Client) -> None:
    scene = pixels(150, 140)
    files = [*pair_files(2)]
    for name, left in (("one", 4), ("two", 6)):
        clean = scene[5:125, left : left + 130]
        files += [("clean", (f"{name}.png", encoded(clean))), ("distorted", (f"{name}.png", encoded(noisy(clean))))]
    pairs = {pair["name"]: pair for pair in created(client.post("/v1/datasets", files=files))["pairs"]}
    assert (pairs["one"]["duplicates"], pairs["two"]["duplicates"]) == (["two"], ["one"])
    assert pairs["000"]["duplicates"] == []
    assert pairs["one"]["verdict"] == "good"


def test_reports_of_the_first_version_can_still_be_read(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    dataset = created(client.post("/v1/datasets", files=pair_files(2)))
    with rows() as session:
        for pair, verdict in zip(session.scalars(select(Pair)).all(), ("shifted", "unlike"), strict=True):
            kept = {name: pair.report[name] for name in ("clean", "distorted", "scale", "psnr_db", "note")}
            pair.report = kept | {"shift_px": {"x": 3, "y": 0}, "verdict": verdict}
        session.commit()
    pairs = client.get(f"/v1/datasets/{dataset['id']}").json()["pairs"]
    assert [pair["verdict"] for pair in pairs] == ["fixable", "reject"]


def folder_of(files: Files, folder: Path) -> Path:
    for side, (name, content) in files:
        (folder / side).mkdir(parents=True, exist_ok=True)
        (folder / side / name).write_bytes(content)
    return folder


def test_the_command_tells_each_pair_and_mends_into_another_folder(tmp_path: Path) -> None:
    folder, output = folder_of(shifted_files(), tmp_path / "pairs"), tmp_path / "mended"
    told = CliRunner().invoke(cli, ["pairs", "check", str(folder), "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert [pair["verdict"] for pair in report["pairs"]] == ["fixable", "fixable"]
    assert report["summary"].endswith("What mends them: --fix align.")
    mended = CliRunner().invoke(cli, ["pairs", "check", str(folder), "--fix", "align", "--output", str(output)])
    assert mended.exit_code == 0, mended.output
    again = json.loads(CliRunner().invoke(cli, ["pairs", "check", str(output), "--json"]).stdout)
    assert [pair["verdict"] for pair in again["pairs"]] == ["good", "good"]


def test_the_command_writes_into_no_capitalised_folder_of_the_pairs_either(tmp_path: Path) -> None:
    folder = folder_of(shifted_files(), tmp_path / "pairs")
    (folder / "clean").rename(folder / "Clean")
    assert CliRunner().invoke(cli, ["pairs", "check", str(folder)]).exit_code == 0
    result = CliRunner().invoke(cli, ["pairs", "check", str(folder), "--output", str(folder / "Clean/mended")])
    assert isinstance(result.exception, CommandFailed)
    assert "is where the pairs come from" in str(result.exception)


def test_the_command_fails_where_a_pair_is_rejected(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["pairs", "check", str(folder_of(swapped_files(), tmp_path))])
    assert result.exit_code == 1
    assert "reject" in result.output


@pytest.mark.parametrize("arguments", [["--fix", "sharpen", "--output", "x"], ["--fix", "align"]])
def test_the_command_says_what_is_missing(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["pairs", "check", str(folder_of(shifted_files(), tmp_path)), *arguments])
    assert isinstance(result.exception, CommandFailed)
    assert result.exception.hint


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("output", ["pairs", "pairs/../pairs", "link", "pairs/clean", "pairs/distorted/mended"])
@pytest.mark.parametrize("fix", [["--fix", "align"], []])
def test_the_command_never_writes_where_the_pairs_come_from(tmp_path: Path, output: str, fix: list[str]) -> None:
    folder = folder_of(shifted_files(), tmp_path / "pairs")
    (tmp_path / "link").symlink_to(folder)
    before = contents(tmp_path)
    result = CliRunner().invoke(cli, ["pairs", "check", str(folder), *fix, "--output", str(tmp_path / output)])
    assert isinstance(result.exception, CommandFailed)
    assert result.exception.hint
    assert contents(tmp_path) == before


@pytest.mark.parametrize("side", ["clean", "distorted"])
def test_the_command_replaces_no_file_and_then_writes_none(tmp_path: Path, side: str) -> None:
    folder, output = folder_of(shifted_files(), tmp_path / "pairs"), tmp_path / "mended"
    (output / side).mkdir(parents=True)
    last = max(path.stem for path in (folder / side).iterdir())
    (output / side / f"{last}.png").write_text("of yesterday")
    before = contents(tmp_path)
    result = CliRunner().invoke(cli, ["pairs", "check", str(folder), "--fix", "align", "--output", str(output)])
    assert isinstance(result.exception, CommandFailed)
    assert f"{side}/{last}.png exists already" in str(result.exception)
    assert contents(tmp_path) == before


def mend(folder: Path, output: Path | str) -> Result:
    return CliRunner().invoke(cli, ["pairs", "check", str(folder), "--fix", "align", "--output", str(output)])


def test_the_command_names_every_file_that_it_cannot_use_and_then_writes_none(tmp_path: Path) -> None:
    folder, output = folder_of(shifted_files(5), tmp_path / "pairs"), tmp_path / "new/mended"
    bad = [folder / "clean/1.png", folder / "clean/2.png", folder / "distorted/2.png", folder / "distorted/4.png"]
    good = {path: path.read_bytes() for path in bad}
    for path in bad[:3]:
        path.write_bytes(good[path][:200])
    bad[3].unlink()
    bad[3].mkdir()  # No file at all, by a name like one.
    before = contents(tmp_path)
    refused = mend(folder, output)
    assert isinstance(refused.exception, CommandFailed)
    first, *named = str(refused.exception).splitlines()
    assert first == "not all files can be used, and nothing is written:"
    assert [line.split(": ")[0].strip() for line in named] == [str(path) for path in bad]
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]
    checked = CliRunner().invoke(cli, ["pairs", "check", str(folder)])
    assert str(checked.exception).splitlines() == ["not all files can be used:", *named]

    bad[3].rmdir()
    for path in bad:
        path.write_bytes(good[path])
    mended = mend(folder, output)
    assert mended.exit_code == 0, mended.output
    assert len(contents(output)) == 10


def test_the_command_lays_pairs_beside_what_a_folder_holds(tmp_path: Path) -> None:
    folder, output = folder_of(shifted_files(), tmp_path / "pairs"), tmp_path / "mended"
    (output / "clean").mkdir(parents=True)
    (output / "clean/other.png").write_text("of yesterday")
    assert mend(folder, output).exit_code == 0
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.png")) == [
        "clean/0.png",
        "clean/1.png",
        "clean/other.png",
        "distorted/0.png",
        "distorted/1.png",
    ]
    assert sorted(path.name for path in output.iterdir()) == ["clean", "distorted"]


def test_the_command_says_where_it_cannot_write_and_leaves_nothing_there(tmp_path: Path) -> None:
    folder, output = folder_of(shifted_files(), tmp_path / "pairs"), tmp_path / "mended"
    output.mkdir()
    (output / "distorted").write_text("a file where a folder should be")
    before = contents(tmp_path)
    for where in (output, "/proc/x"):
        refused = mend(folder, where)
        assert isinstance(refused.exception, CommandFailed)
        assert str(refused.exception).startswith(f"{where} cannot be written: ")
    assert contents(tmp_path) == before


def test_a_grey_clean_image_of_coloured_ones_is_rejected_and_no_fix_is_offered(client: httpx.Client) -> None:
    files: Files = []
    for number in range(2):
        scene = pixels(150, 140, seed=number)
        files.append(("clean", (f"{number}.png", encoded(Image.fromarray(scene).convert("L")))))
        files.append(("distorted", (f"{number}.png", encoded(noisy(scene)))))
    pair = created(client.post("/v1/datasets", files=files))["pairs"][0]
    assert pair["verdict"] == "reject"
    assert "grey_clean" in {finding["code"] for finding in pair["findings"]}
    assert "match_colour" not in {finding["fix"] for finding in pair["findings"]}

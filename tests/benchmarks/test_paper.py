"""`drtl bench paper` at the smallest scale, from folders of pairs to tables and figures."""

import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
import torch.nn.functional as F
import typer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from app.cli import app as cli
from benchmarks.devices import real_device
from benchmarks.paper import __main__ as command
from benchmarks.paper import networks, schemes
from benchmarks.paper.materials import Materials
from benchmarks.paper.real_esrgan import RRDBNet
from benchmarks.paper.scales import SCALES
from benchmarks.paper.table1 import COLUMNS
from ml import finetune, meta, transfer
from ml.auxiliary import auxiliary_batch
from ml.backbones import BACKBONES, BackboneName
from ml.distortions import PAPERS, distort
from ml.guidance import TaskMix
from ml.images import from_uint8, to_uint8
from ml.meta import MetaSchedule
from ml.prior import load_prior
from ml.sampling import generator_for

ROOT = Path(__file__).parents[2]
SPOILED = {"scanner": "severe", "zoom": "blur"}


def scene(index: int, stage: str) -> Tensor:
    """Blobs of colour with some grain."""
    generator = generator_for(index, stage, 0)
    coarse = F.interpolate(torch.rand(1, 3, 12, 12, generator=generator), (112, 112), mode="bicubic")[0]
    return (coarse + 0.1 * torch.randn(3, 112, 112, generator=generator)).clamp(0, 1)


def write(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy()).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two targets of two pairs and one unseen image each, and clean photographs."""
    folder = tmp_path_factory.mktemp("study")
    for target, distortion in SPOILED.items():
        for stage, count in (("train", 2), ("test", 1)):
            for index in range(count):
                clean = scene(index, f"{target}/{stage}")
                write(clean, folder / "targets" / target / stage / "clean" / f"{index}.png")
                spoiled = distort(distortion, clean, generator_for(index, "spoiled", 0))
                write(spoiled, folder / "targets" / target / stage / "distorted" / f"{index}.png")
    for index in range(2):
        write(scene(index, "clean"), folder / "clean" / f"{index}.png")
    return folder


def run(folders: Path, output: Path, **options: Any) -> dict[str, Any]:
    """The command with its function called; its records."""
    asked: dict[str, Any] = {"targets": folders / "targets", "backbone": ["vdsr"], "shots": 2} | options
    command.paper(scale="smoke", clean=folders / "clean", output=output, **asked)
    report: dict[str, Any] = json.loads((output / "records.json").read_text())
    return report


@pytest.fixture(scope="module")
def study(folders: Path) -> Path:
    """Everything, once; Real-ESRGAN is a small one without training."""
    torch.save({"params_ema": RRDBNet(4, blocks=1, width=8).state_dict()}, folders / "real-esrgan.pth")
    run(folders, folders / "all", real_esrgan=folders / "real-esrgan.pth")
    return folders / "all"


def without_time(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in report["trials"]]


def test_one_run_makes_every_table_and_figure(study: Path) -> None:
    report = json.loads((study / "records.json").read_text())
    assert report["commit"]
    assert report["machine"]["cores"] >= 1
    assert {trial["seed"] for trial in report["trials"] if "seed" in trial} == {0}
    page = (study / "results.md").read_text()
    for heading in ("Table 1", "Table 2", "Table 3", "Fig. 4", "Fig. 6", "Fig. 7"):
        assert f"## {heading}" in page
    assert "–" not in [cell.strip() for line in page.splitlines() for cell in line.split("|")]  # Nothing is missing.
    assert "| PSNR (dB) | Input | Baseline | DIP | Real-ESRGAN | DRTL (PT) |" in page
    for name in ("fig4a", "fig4b", "fig6", "fig7"):
        assert f"figures/{name}.png" in page
        with Image.open(study / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert sum(count > 0 for count in picture.convert("L").histogram()) > 20  # There is something on it.
        assert ET.parse(study / "figures" / f"{name}.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own


def test_trainings_on_one_target_have_equal_steps_and_samples(study: Path) -> None:
    scale = SCALES["smoke"].plain
    trained = [trial for trial in json.loads((study / "records.json").read_text())["trials"] if "backbone" in trial]
    assert {trial["finetune_samples"] for trial in trained} == {scale.finetune_steps * scale.batch}
    transferred = {trial["transfer_samples"] for trial in trained if trial.get("scheme") != "baseline"}
    assert transferred == {scale.transfer_steps * scale.batch}


def test_steps_rates_and_schemes_may_be_chosen_and_others_are_not_mixed_in(folders: Path, tmp_path: Path) -> None:
    one = {"targets": None, "target": [folders / "targets" / "zoom"], "only": "table1"}
    amount = {"steps": 2, "transfer_steps": 3, "rates": "paper", "transfer_rate": 2e-4, "all_unseen": True}
    report = run(folders, tmp_path, scheme=["drtl-pretrain", "baseline"], **amount, **one)
    _, *trained = report["trials"]
    batch = SCALES["smoke"].plain.batch
    seen = {trial["scheme"]: (trial["transfer_samples"], trial["finetune_samples"]) for trial in trained}
    assert seen == {"baseline": (0, 2 * batch), "drtl-pretrain": (3 * batch, 2 * batch)}
    page = (tmp_path / "results.md").read_text()
    assert "3 + 2 steps" in page
    assert "; all unseen images, whole." in page
    assert "Fig. 7" not in page  # Of one number of pairs there is no curve.
    assert "learning rates 0.0001 from nothing, 0.0002 of transfer, 0.0001 after it" in page
    assert report["decay"] == report["schedules"]["finetune"]["decay"] == "paper"
    (row,) = (line for line in page.splitlines() if line.startswith("| VDSR"))
    assert [cell.strip() == "–" for cell in row.split("|")[2:10]] == [False, True, True, False, True, False, True, True]
    assert row.endswith("| 1 |")
    with pytest.raises(typer.BadParameter, match="none: known are baseline"):
        run(folders, tmp_path, scheme=["none"], **one)
    for others in (
        {},
        amount | {"rates": None},
        amount | {"steps": 3},
        amount | {"transfer_rate": None},
        amount | {"all_unseen": False},
    ):
        with pytest.raises(SystemExit, match="begun with other settings"):
            run(folders, tmp_path, **others, **one)


def test_figures_are_drawn_again_from_the_records_alone(study: Path, tmp_path: Path) -> None:
    report = json.loads((study / "records.json").read_text())
    report["trials"] = [trial for trial in report["trials"] if trial["kind"] in {"input", "training"}]
    (tmp_path / "records.json").write_text(json.dumps(report))
    command.paper(output=tmp_path, draw=True)
    page = (tmp_path / "results.md").read_text()
    assert re.findall(r"^## (.+?):", page, re.MULTILINE) == ["Table 1", "Fig. 7"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["fig7.png", "fig7.svg"]
    drawn = "figures/fig7.svg"
    assert (tmp_path / drawn).read_bytes() == (study / drawn).read_bytes()


def test_an_interrupted_run_goes_on_and_ends_with_the_same_records(
    folders: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = {"targets": None, "target": [folders / "targets" / "zoom"]}
    fresh, calls = networks.fresh, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)  # As Ctrl-C does, in the middle of the third training.
        return fresh(*arguments, **options)

    monkeypatch.setattr(schemes, "fresh", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # What runs in the background may ignore it.
    try:
        with pytest.raises(typer.Exit) as stopped:
            run(folders, tmp_path, only="table1", **targets)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.exit_code == 130
    assert "3 records are kept" in capsys.readouterr().err  # The input and two trainings.
    kept = json.loads((tmp_path / "records.json").read_text())["trials"]

    report = run(folders, tmp_path, only="table1", **targets)  # The third call is over.
    assert report["trials"][:3] == kept  # With the seconds they took: they were not made twice.
    whole = [
        trial
        for trial in without_time(json.loads((study / "records.json").read_text()))
        if trial.get("target") == "zoom" and trial["kind"] in {"input", "training"}
    ]
    assert without_time(report) == [trial for trial in whole if trial.get("shots", 2) == 2]


def test_a_folder_of_other_settings_is_not_mixed_with(folders: Path, study: Path) -> None:
    before = (study / "records.json").read_bytes()
    with pytest.raises(SystemExit, match="other settings"):
        run(folders, study, shots=1)
    assert (study / "records.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only": "table1,fig5"}, "fig5"),
        ({"backbone": ["vgg"]}, "vgg"),
        ({"target": [ROOT / "docs"], "targets": None}, "no images in train/clean"),
        ({"real_esrgan": ROOT / "README.md"}, "cannot be read as weights"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    folders: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        run(folders, tmp_path, **options)
    assert not any(tmp_path.iterdir())


def test_drtl_bench_paper_reaches_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(cli, ["bench", "paper", "--only", "fig5"])
    assert done.exit_code == 2
    assert "fig5: there are table1" in re.sub(r"[\s│]+", " ", capfd.readouterr().err)


def test_every_scheme_draws_as_many_crops_in_as_many_steps(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = replace(SCALES["smoke"].plain, transfer_steps=1, finetune_steps=2, batch=4)
    extent = replace(SCALES["smoke"], plain=scale)
    drawn = {"auxiliary": 0, "target": 0}

    def counting(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            result = function(*arguments)
            drawn[kind] += len(result.clean if kind == "auxiliary" else result[0])
            return result

        return counted

    auxiliary = counting(auxiliary_batch, "auxiliary")
    for module in (transfer, meta):
        monkeypatch.setattr(module, "auxiliary_batch", auxiliary)
    monkeypatch.setattr(finetune, "target_batch", counting(finetune.target_batch, "target"))
    steps: list[None] = []
    materials = Materials(folders, extent, folders / "clean", load_prior(), lambda: steps.append(None))
    target = real_device(folders / "targets" / "scanner", 2, 1)
    bench = materials.bench(target, 0, 2, scale)
    relation = materials.relation(target, 0, 2)
    seen = {}
    for scheme in COLUMNS:
        drawn |= {"auxiliary": 0, "target": 0}
        steps.clear()
        _, facts = schemes.train(bench, schemes.training_of(scheme, "vdsr", 0, relation, "transferability"), extent)
        assert drawn == {"auxiliary": facts["transfer_samples"], "target": facts["finetune_samples"]}
        seen[scheme] = (len(steps), *drawn.values())
    assert seen.pop("baseline") == (2, 0, 8)
    assert set(seen.values()) == {(3, 4, 8)}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_learns_by_every_kind_of_step(folders: Path, backbone: BackboneName) -> None:
    extent = SCALES["smoke"]
    materials = Materials(folders, extent, folders / "clean", load_prior(), lambda: None)
    target = real_device(folders / "targets" / "zoom", 2, 1)
    bench, relation = materials.bench(target, 0, 2, extent.deep), materials.relation(target, 0, 2)
    training = schemes.training_of("drtl-maml", backbone, 0, relation, "transferability")
    trained, _ = schemes.train(bench, training, extent)
    before = networks.fresh(backbone, 4, 0, cut_down=True)
    changed = [
        not torch.equal(one, other) for one, other in zip(trained.parameters(), before.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2
    assert bench.psnr(trained) > 10


def test_a_target_with_larger_clean_images_is_measured_on_the_same_areas(folders: Path, tmp_path: Path) -> None:
    for stage, count in (("train", 2), ("test", 1)):
        for index in range(count):
            clean = scene(index, f"small/{stage}")
            write(clean, tmp_path / "small" / stage / "clean" / f"{index}.png")
            small = F.interpolate(clean[None], scale_factor=0.5, mode="bicubic", antialias=True)[0].clamp(0, 1)
            write(small, tmp_path / "small" / stage / "distorted" / f"{index}.png")
    one = {"targets": None, "target": [tmp_path / "small"], "only": "table1", "scheme": ["baseline"]}
    trials = run(folders, tmp_path / "out", **one)["trials"]
    measured = {trial.get("scheme", "input"): trial["psnr"] for trial in trials}
    clean, distorted = real_device(tmp_path / "small", 2, 1).test[0].clean, to_uint8(scene(0, "small/test"))
    assert torch.equal(clean, distorted)
    small = F.interpolate(from_uint8(clean)[None], scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    again = F.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)[0]
    middle = slice(112 // 2 - 24, 112 // 2 + 24)
    error = (again - from_uint8(clean))[:, middle, middle].square().mean()
    assert measured["input"] == pytest.approx(float(-10 * error.log10()), abs=0.5)
    assert measured["baseline"] == pytest.approx(measured["input"], abs=1.0)


def test_a_target_that_no_job_would_take_is_refused_in_one_line(folders: Path, tmp_path: Path) -> None:
    for stage in ("train", "test"):
        write(scene(0, "bad"), tmp_path / "odd" / stage / "clean" / "0.png")
        write(scene(0, "bad")[:, :100, :61], tmp_path / "odd" / stage / "distorted" / "0.png")
    with pytest.raises(typer.BadParameter, match="0 has sizes"):
        run(folders, tmp_path / "out", targets=None, target=[tmp_path / "odd"], only="table1")


def test_the_deep_backbones_are_cut_down_in_quick_alone() -> None:
    assert [name for name, extent in SCALES.items() if extent.cut_down] == ["smoke", "quick"]
    for backbone in networks.DEEP:
        whole, cut = (networks.multiplications(backbone, 4, cut_down=small) for small in (False, True))
        assert cut < whole / 10


def test_deep_backbones_are_measured_at_their_published_sizes_where_asked(folders: Path, tmp_path: Path) -> None:
    one = {"targets": None, "target": [folders / "targets" / "zoom"], "only": "table1", "scheme": ["baseline"]}
    run(folders, tmp_path, backbone=["rcan"], published_sizes=True, **one)
    page = (tmp_path / "results.md").read_text()
    assert "| RCAN |" in page
    assert "cut down" not in page
    with pytest.raises(SystemExit, match="begun with other settings"):
        run(folders, tmp_path, backbone=["rcan"], **one)


@given(
    half=st.integers(1, 16),
    tasks=st.integers(1, 8),
    gamma=st.lists(st.sampled_from([0.0, 0.3, 0.9]), min_size=len(PAPERS), max_size=len(PAPERS)).filter(any),
)
def test_a_meta_learning_step_wastes_no_sample_of_the_batch(half: int, tasks: int, gamma: list[float]) -> None:
    mix = TaskMix(torch.tensor(gamma))
    chosen = schemes.equal_samples(MetaSchedule(tasks=tasks), mix, 2 * half)
    visited = meta.visited_tasks(mix.gamma, None, chosen.tasks, generator_for(0, "visit", 0))
    shots = max(1, 2 * half // (2 * len(visited)))
    assert len(visited) <= tasks
    assert 2 * shots * len(visited) == 2 * half

"""What a prior's card says of photographs, and how the networks of a bundle are measured on others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor

from ml import checkpoint, prior_card
from ml.backbones import SameSize, build
from ml.distortions import PAPERS, distort
from ml.evaluate import quality_of
from ml.images import decode, digest_of, from_uint8, to_uint8
from ml.metrics import psnr
from ml.prior import SHIPPED, Prior, load_prior, save_prior
from ml.prior_card import metrics_of, names_all_images, unseen_photographs
from ml.prior_images import photographs_in
from ml.prior_measurement import measure_prior
from ml.sampling import generator_for
from ml.tiling import restore_tiled
from ml.transferability import fresh_expert

TASKS = ["noise", "blur"]


@pytest.fixture
def unseen(tmp_path: Path, photographs: dict[str, Tensor]) -> Path:
    return folder_of(tmp_path / "unseen", {name: photographs[name] for name in ("chelsea", "coffee")})


@pytest.fixture
def bundle(tiny_jobs: None, tiny_prior: Prior, random_network: Callable[..., SameSize], tmp_path: Path) -> Path:
    """Two networks that change images a little, of the size that tiny jobs have, and an expert."""
    path = tmp_path / "bundle.safetensors"
    thetas = tiny_prior.thetas | {"vdsr-u1": {**random_network(1, seed=9).state_dict()}}
    card = {"licence": "CC0", "tasks": TASKS, "images": [{"name": "a.png", "sha256": "0" * 64}]}
    save_prior(path, replace(tiny_prior, thetas=thetas, card=card, experts={"noise": fresh_expert(7)}))
    return path


def folder_of(folder: Path, images: dict[str, Tensor]) -> Path:
    folder.mkdir()
    for name, pixels in images.items():
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{name}.png")
    return folder


def listed(*files: Path) -> list[dict[str, str]]:
    return [{"name": file.name, "sha256": digest_of([to_uint8(decode(file).pixels)])} for file in files]


# ---- photographs


def test_a_photograph_is_known_by_all_its_pixels_whatever_its_file_and_the_part_that_is_used(
    unseen: Path, photographs: dict[str, Tensor]
) -> None:
    Image.fromarray(photographs["coffee"].permute(1, 2, 0).numpy()).save(unseen / "same.tif")
    chelsea, coffee, same = photographs_in([unseen])
    assert coffee.sha256 == same.sha256 == coffee.middle(256).sha256 == digest_of([photographs["coffee"]])
    assert chelsea.sha256 != coffee.sha256
    height, width = photographs["coffee"].shape[1:]
    top, left = (height - 256) // 2, (width - 256) // 2
    assert torch.equal(coffee.middle(256).pixels, photographs["coffee"][:, top : top + 256, left : left + 256])


def test_what_is_too_small_or_there_twice_is_left_out_and_of_many_some_are_drawn_by_the_seed(
    tmp_path: Path, seeded: Callable[[int], torch.Generator]
) -> None:
    many = {f"{i:02}": torch.randint(256, (3, 256, 257), generator=seeded(i)).to(torch.uint8) for i in range(14)}
    small = {"small": torch.zeros(3, 255, 400, dtype=torch.uint8)}
    folders = [folder_of(tmp_path / "many", many | small), folder_of(tmp_path / "again", {"again": many["00"]})]

    def drawn(seed: int) -> list[str]:
        chosen = unseen_photographs(folders, {}, seed)
        assert all(photograph.pixels.shape == (3, 256, 256) for photograph in chosen)
        return [photograph.sha256 for photograph in chosen]

    assert len(set(drawn(0))) == len(drawn(0)) == 12
    assert drawn(0) == drawn(0) != drawn(1)
    assert set(drawn(0)) <= {digest_of([pixels]) for pixels in many.values()}


@pytest.mark.parametrize("training", ["the first", "an extension", "a pretraining"])
def test_photographs_of_any_training_are_refused_and_named(unseen: Path, training: str) -> None:
    images = {"images": listed(unseen / "coffee.png")}
    cards: dict[str, dict[str, Any]] = {
        "the first": images,
        "an extension": {"images": [], "extensions": [{}, images]},
        "a pretraining": {"images": [], "pretraining": [images, {"images": []}]},
    }
    with pytest.raises(ValueError, match=r"trained on coffee\.png: "):
        unseen_photographs([unseen], cards[training], 0)


def test_an_older_card_names_no_images_and_is_known_for_it(unseen: Path) -> None:
    older = {"photographs": 44, "extensions": [{"photographs": 44}], "theta_steps": 9000}
    assert not names_all_images(older)
    assert len(unseen_photographs([unseen], older, 0)) == 2
    assert names_all_images({"images": [], "extensions": [{"images": []}]})
    assert not names_all_images({"images": [], "extensions": [{"photographs": 44}]})


# ---- metrics


def test_metrics_are_the_mean_psnr_of_what_is_stored_before_and_after_each_network(bundle: Path, unseen: Path) -> None:
    prior = load_prior(bundle)
    metrics = metrics_of(prior, unseen_photographs([unseen], prior.card, 5), 5)
    assert metrics["images"] == listed(unseen / "chelsea.png", unseen / "coffee.png")
    assert (metrics["seed"], metrics["side"], metrics["torch"]) == (5, 256, torch.__version__)
    assert metrics["psnr_db"].keys() == {"vdsr-u1", "vdsr-u2"}
    for theta, of_tasks in metrics["psnr_db"].items():
        network = build("vdsr", int(theta[-1]), seed=0)
        network.load_state_dict(prior.thetas[theta])
        network.eval()
        assert list(of_tasks) == TASKS
        for task, found in of_tasks.items():
            before, after = 0.0, 0.0
            for index, photograph in enumerate(photographs_in([unseen])):
                clean = from_uint8(photograph.middle(256).pixels)
                distorted = distort(task, clean, generator_for(5, f"measured-{task}", index))
                before += psnr(distorted, clean) / 2
                after += psnr(from_uint8(to_uint8(restore_tiled(network, distorted))), clean) / 2
            assert found == {"input": pytest.approx(before, abs=1e-3), "restored": pytest.approx(after, abs=1e-3)}
            assert abs(before - after) > 0.01


def test_metrics_depend_on_the_seed_and_on_nothing_else(bundle: Path, unseen: Path) -> None:
    prior = load_prior(bundle)

    def measured(seed: int) -> dict[str, Any]:
        return metrics_of(prior, unseen_photographs([unseen], prior.card, seed), seed)

    torch.manual_seed(1)
    first = measured(0)
    torch.manual_seed(2)
    assert measured(0) == first
    assert measured(1)["psnr_db"] != first["psnr_db"]


@pytest.mark.parametrize("tasks", [None, [], ["scratches"]])
def test_where_the_card_names_no_tasks_that_there_are_nothing_is_measured(
    bundle: Path, unseen: Path, tasks: list[str] | None
) -> None:
    prior = replace(load_prior(bundle), card={} if tasks is None else {"tasks": tasks})
    with pytest.raises(ValueError, match="names as tasks"):
        metrics_of(prior, unseen_photographs([unseen], {}, 0), 0)


def test_the_networks_that_ship_gain_on_photographs_that_take_part_in_no_training(unseen: Path) -> None:
    prior = load_prior(SHIPPED)
    only = replace(prior, thetas={"vdsr-u2": prior.thetas["vdsr-u2"]}, card={"tasks": ["noise"]})
    ((_, of_tasks),) = metrics_of(only, unseen_photographs([unseen], only.card, 0), 0)["psnr_db"].items()
    assert of_tasks["noise"]["restored"] > of_tasks["noise"]["input"] + 1


# ---- the command


def test_a_measured_bundle_differs_in_nothing_but_the_metrics_of_its_card(
    bundle: Path, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "measured.safetensors"
    measure_prior([unseen], output, bundle)
    (before, facts), (after, new_facts) = checkpoint.load(bundle), checkpoint.load(output)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert torch.equal(value, after[name]), name
    metrics = new_facts["card"].pop("metrics")
    assert new_facts == facts
    assert metrics["training_images_known"]
    shown = capsys.readouterr().out
    for theta in ("vdsr-u1", "vdsr-u2"):
        for task in TASKS:
            psnr_db = metrics["psnr_db"][theta][task]
            (row,) = (line for line in shown.splitlines() if theta in line and task in line)
            assert f"{psnr_db['input']:.2f}" in row
            assert f"{psnr_db['restored']:.2f}" in row


def test_without_an_output_nothing_is_written_and_an_older_card_is_noted(
    bundle: Path, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = replace(load_prior(bundle), card={"tasks": list(PAPERS[2:3]), "photographs": 44})
    save_prior(bundle, older)
    files, content = sorted(tmp_path.rglob("*")), bundle.read_bytes()
    measure_prior([unseen], prior=bundle)
    assert (sorted(tmp_path.rglob("*")), bundle.read_bytes()) == (files, content)
    shown = capsys.readouterr()
    assert "vdsr-u2" in shown.out
    assert "does not name all images" in shown.err


def test_the_command_refuses_photographs_of_the_training_and_folders_without_any(
    bundle: Path, unseen: Path, tmp_path: Path
) -> None:
    known = load_prior(bundle)
    save_prior(bundle, replace(known, card=known.card | {"images": listed(unseen / "coffee.png")}))
    with pytest.raises(typer.BadParameter, match=r"coffee\.png"):
        measure_prior([unseen], tmp_path / "none", bundle)
    with pytest.raises(typer.BadParameter, match="missing"):
        measure_prior([tmp_path / "missing"], tmp_path / "none", bundle)
    assert not (tmp_path / "none").exists()


def test_a_measurement_that_is_interrupted_leaves_nothing(
    bundle: Path, unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []

    def stop(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return quality_of(*args)

    monkeypatch.setattr(prior_card, "quality_of", stop)
    files, content = sorted(tmp_path.rglob("*")), bundle.read_bytes()
    for output in (tmp_path / "new", bundle):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            measure_prior([unseen], output, bundle)
        assert (sorted(tmp_path.rglob("*")), bundle.read_bytes()) == (files, content)

"""The command that trains a prior's weights of a backbone further, or those that it lacks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor

from ml import backbones, prior_loops
from ml.backbones import build, dncnn, vdsr
from ml.dead_leaves import dead_leaves
from ml.distortions import DISTORTIONS, PAPERS
from ml.images import decode, digest_of, to_uint8
from ml.prior import Prior, load_prior, save_prior
from ml.prior_images import generated_images, load_photographs
from ml.prior_pretraining import pretrain
from ml.transfer import TransferSchedule, transfer_step
from ml.transferability import fresh_expert

pytestmark = pytest.mark.usefixtures("few_leaves")
Seeded = Callable[[int], torch.Generator]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.BACKBONES, "vdsr", lambda unshuffle: vdsr(unshuffle, depth=4, width=8))
    monkeypatch.setitem(backbones.BACKBONES, "dncnn", lambda unshuffle: dncnn(unshuffle, depth=3, width=4))


@pytest.fixture
def clean(tmp_path: Path, seeded: Seeded) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    for index in range(2):
        pixels = to_uint8(dead_leaves(120, seeded(index), leaves=150))
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def bundle(tiny_prior: Prior, tmp_path: Path) -> Path:
    """With weights of VDSR alone, and an expert."""
    path = tmp_path / "bundle.safetensors"
    thetas = {"vdsr-u2": build("vdsr", 2, seed=5).state_dict()}
    card = {"licence": "CC0", "tasks": list(PAPERS), "theta_steps": 9}
    save_prior(path, replace(tiny_prior, thetas=thetas, card=card, experts={"noise": fresh_expert(7)}))
    return path


def pretrained(bundle: Path, clean: Path, name: str = "new", **options: Any) -> Prior:
    output = bundle.with_name(f"{name}.safetensors")
    pretrain([clean], output, bundle, licence="CC BY 4.0", **{"steps": 3, "batch": 2} | options)
    return load_prior(output)


def test_the_weights_go_on_from_those_of_the_bundle_and_nothing_else_changes(bundle: Path, clean: Path) -> None:
    before, after = load_prior(bundle), pretrained(bundle, clean)
    start, end = before.thetas["vdsr-u2"], after.thetas["vdsr-u2"]
    assert all(not torch.equal(start[name], value) for name, value in end.items())
    for name, value in before.drn.state_dict().items():
        assert torch.equal(value, after.drn.state_dict()[name])
    assert torch.equal(before.prototypes.vectors, after.prototypes.vectors)
    for name, value in before.experts["noise"].state_dict().items():
        assert torch.equal(value, after.experts["noise"].state_dict()[name])
    assert after.version != before.version


def test_a_step_is_one_of_pre_training_on_all_tasks_alike(bundle: Path, clean: Path) -> None:
    after = pretrained(bundle, clean, steps=1, learning_rate=1.0)  # What a step changes shows in half precision.
    network = build("vdsr", 2, seed=1)
    load_prior(bundle).start(network, "vdsr")
    images = load_photographs([clean]) + generated_images(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1.0 / 200)  # The first of 200 steps of warm-up.
    tasks = list(DISTORTIONS)
    transfer_step(network, optimizer, images, tasks, torch.ones(len(tasks)), TransferSchedule(1, 2), 1, 0)
    for name, value in network.state_dict().items():
        assert torch.allclose(after.thetas["vdsr-u2"][name].float(), value, rtol=1e-3, atol=1e-6), name


def test_weights_that_the_bundle_lacks_are_trained_from_nothing(bundle: Path, clean: Path) -> None:
    before, after = load_prior(bundle), pretrained(bundle, clean, backbone="dncnn", learn="paper")
    assert after.thetas.keys() == {"vdsr-u2", "dncnn-u2"}
    assert all(torch.equal(value, after.thetas["vdsr-u2"][name]) for name, value in before.thetas["vdsr-u2"].items())
    assert any(value.any() for name, value in after.thetas["dncnn-u2"].items() if name.endswith("4.weight"))
    with pytest.raises(typer.BadParameter, match="resnet"):
        pretrained(bundle, clean, backbone="resnet")


def test_the_card_keeps_what_there_was_and_says_what_was_trained(bundle: Path, clean: Path) -> None:
    pretrained(bundle, clean)
    card = pretrained(bundle.with_name("new.safetensors"), clean, "newer", backbone="dncnn", learn="paper", seed=2).card
    assert (card["tasks"], card["theta_steps"], card["licence"]) == (list(PAPERS), 9, "CC0")
    first, second = card["pretraining"]
    assert first["of"] == load_prior(bundle).version
    assert (first["theta"], first["further"], first["tasks"]) == ("vdsr-u2", True, list(DISTORTIONS))
    assert (first["steps"], first["batch"], first["photographs"], first["licence"]) == (3, 2, 2, "CC BY 4.0")
    assert (second["theta"], second["further"], second["tasks"]) == ("dncnn-u2", False, list(PAPERS))
    assert second["seed"] == 2
    for training in (first, second):
        assert training["images"] == [
            {"name": name, "sha256": digest_of([to_uint8(decode(clean / name).pixels)])} for name in ("0.png", "1.png")
        ]


def test_what_was_measured_before_is_not_said_of_other_weights(bundle: Path, clean: Path) -> None:
    measured = load_prior(bundle)
    save_prior(bundle, replace(measured, card=measured.card | {"metrics": {"psnr_db": {}}}))
    assert pretrained(bundle, clean).card["metrics"] is None


def test_a_folder_without_photographs_is_a_wrong_argument_and_nothing_is_written(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(typer.BadParameter, match="no images in"):
        pretrained(bundle, tmp_path / "empty")
    assert not (tmp_path / "new.safetensors.work").exists()


def test_an_interrupted_training_resumes_to_the_same_bits_and_another_one_does_not(
    bundle: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrained(bundle, clean)
    monkeypatch.setattr(prior_loops, "SAVE_EVERY_S", -1.0)
    done: list[int] = []

    def noted(*args: Any) -> Tensor:
        done.append(args[-1])
        return transfer_step(*args)

    def stop(*args: Any) -> Tensor:
        if len(done) == 2:
            raise InterruptedError
        return noted(*args)

    with monkeypatch.context() as patch:
        patch.setattr(prior_loops, "transfer_step", stop)
        with pytest.raises(InterruptedError):
            pretrained(bundle, clean, "resumed")
    monkeypatch.setattr(prior_loops, "transfer_step", noted)
    resumed = pretrained(bundle, clean, "resumed")
    assert done == [0, 1, 2]
    assert resumed.version == whole.version
    pretrained(bundle, clean, "resumed", learning_rate=1e-3)  # Not what is kept in the folder of work.
    assert done == [0, 1, 2, 0, 1, 2]


def test_a_bundle_that_cannot_be_read_is_told_as_a_wrong_use(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="nowhere"):
        pretrain([clean], tmp_path / "new", tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(typer.BadParameter, match="empty"):
        pretrain([clean], tmp_path / "new", tmp_path / "empty")
    assert not (tmp_path / "new.work").exists()

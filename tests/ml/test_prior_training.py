"""The command that rebuilds the prior."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor

from ml import prior_loops, prior_training
from ml.backbones import BACKBONES, BackboneName, SameSize, build, dncnn, rcan, rdn, vdsr
from ml.dead_leaves import dead_leaves
from ml.distortions import DISTORTIONS, PAPERS
from ml.drn import DrnShape
from ml.edges import Edges
from ml.images import decode, digest_of, to_uint8
from ml.prior import Prior, load_prior
from ml.prior_images import generated_images, load_photographs
from ml.prior_loops import train_network, training_bars
from ml.prior_training import schedule_of, train_prior
from ml.relation import drn_step
from ml.transfer import TransferSchedule, transfer_step
from tests.layers import convolution

pytestmark = pytest.mark.usefixtures("few_leaves")
Seeded = Callable[[int], torch.Generator]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny: dict[BackboneName, Callable[[int], SameSize]] = {
        "vdsr": lambda unshuffle: vdsr(unshuffle, depth=4, width=8),
        "vdsr-small": lambda unshuffle: vdsr(unshuffle, depth=4, width=6),
        "dncnn": lambda unshuffle: dncnn(unshuffle, depth=3, width=4),
        "rcan": lambda unshuffle: rcan(unshuffle, groups=1, blocks=1, width=4, reduction=2),
        "rdn": lambda unshuffle: rdn(unshuffle, blocks=1, layers=1, growth=4, width=4),
    }
    assert tiny.keys() == BACKBONES.keys()
    for name, make in tiny.items():
        monkeypatch.setitem(BACKBONES, name, make)
    monkeypatch.setattr(prior_training, "DrnShape", lambda **variant: replace(DrnShape(1 / 16, 8), **variant))
    monkeypatch.setattr(prior_training, "PROTOTYPE_SAMPLES", 2)


@pytest.fixture
def clean(tmp_path: Path, seeded: Seeded) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    for index in range(2):
        pixels = to_uint8(dead_leaves(120, seeded(index), leaves=150))
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    Image.new("RGB", (40, 300)).save(folder / "too-small.png")
    return folder


def train(clean: Path, output: Path, **options: Any) -> Prior:
    few: dict[str, Any] = {"network": ["vdsr:2"], "drn_steps": 3, "theta_steps": 3, "batch": 2, "expert_steps": 1}
    train_prior([clean], output, licence="CC0", **few | options)
    return load_prior(output)


def equal(one: Prior, other: Prior) -> bool:
    def tensors(prior: Prior) -> list[torch.Tensor]:
        thetas = [value for theta in prior.thetas.values() for value in theta.values()]
        prototypes = prior.prototypes
        experts = [value for expert in prior.experts.values() for value in expert.state_dict().values()]
        return [
            *prior.drn.state_dict().values(),
            *thetas,
            *experts,
            prototypes.vectors,
            prototypes.samples,
            prototypes.psnr_db,
        ]

    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_an_interrupted_training_resumes_to_the_same_bits(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the relation network, in the first network, before and in the second, and in an expert."""
    networks = ["vdsr:2", "dncnn:4"]
    whole = train(clean, tmp_path / "whole", network=networks)
    monkeypatch.setattr(prior_loops, "SAVE_EVERY_S", -1.0)
    interruptions = [("drn_step", 2)] + [("transfer_step", step) for step in (1, 0, 1, 0)]
    for name, at in interruptions:
        real: Callable[..., Any] = getattr(prior_loops, name)

        def stop(*args: object, _real: Callable[..., Any] = real, _at: int = at, **kwargs: object) -> Any:
            step = kwargs.get("step", args[-1])
            if step == _at:
                raise InterruptedError
            return _real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(prior_loops, name, stop)
            with pytest.raises(InterruptedError):
                train(clean, tmp_path / "resumed", network=networks)
    steps: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        steps.append(1)
        return drn_step(*args, **kwargs)

    monkeypatch.setattr(prior_loops, "drn_step", counted)
    resumed = train(clean, tmp_path / "resumed", network=networks)
    assert steps == []  # The DRN was whole.
    assert equal(whole, resumed)
    assert resumed.version == whole.version


def test_what_was_trained_otherwise_is_not_gone_on_with(clean: Path, tmp_path: Path) -> None:
    train(clean, tmp_path / "shared")
    others: list[dict[str, Any]] = [{"seed": 3}, {"learn": "all"}, {"theta_steps": 2, "expert_steps": 2}]
    for number, other in enumerate(others):
        shared = train(clean, tmp_path / "shared", **other)
        assert equal(shared, train(clean, tmp_path / f"alone-{number}", **other))


def test_the_card_says_how_the_prior_was_made(clean: Path, tmp_path: Path) -> None:
    prior = train(clean, tmp_path / "prior")
    card = prior.card
    assert card["licence"] == "CC0"
    assert card["photographs"] == 2  # The third is too small to cut a patch with its margin from.
    assert card["tasks"] == list(PAPERS)
    assert prior.prototypes.names == list(DISTORTIONS)
    assert (card["drn_steps"], card["seed"]) == (3, 0)
    (theta,) = card["thetas"].items()
    assert theta == ("vdsr-u2", {"steps": 3, "batch": 2, "learning_rate": 6e-4, "loss": theta[1]["loss"]})
    assert 0 < theta[1]["loss"] < 1
    assert card["images"] == [
        {"name": name, "sha256": digest_of([to_uint8(decode(clean / name).pixels)])} for name in ("0.png", "1.png")
    ]
    assert card["metrics"] is None
    assert list(prior.thetas) == ["vdsr-u2"]
    assert prior.experts.keys() == DISTORTIONS.keys()
    assert card["expert_steps"] == 1
    assert prior.version.startswith(card["date"])


def test_what_was_not_trained_has_no_loss(clean: Path, tmp_path: Path) -> None:
    card = train(clean, tmp_path / "prior", drn_steps=0, theta_steps=0, expert_steps=0).card
    assert card["drn_loss"] is None
    assert [training["loss"] for training in card["thetas"].values()] == [None]


def test_without_being_told_all_networks_that_ship_are_trained_as_they_ship(clean: Path, tmp_path: Path) -> None:
    card = train(clean, tmp_path / "prior", network=None, theta_steps=1, batch=1, expert_steps=0).card
    rates = {theta: training["learning_rate"] for theta, training in card["thetas"].items()}
    assert rates == {"vdsr-u2": 6e-4, "vdsr-u4": 6e-4, "vdsr-small-u2": 1e-3, "dncnn-u2": 4e-4}
    assert {training["steps"] for training in card["thetas"].values()} == {1}


@pytest.mark.parametrize(
    ("backbone", "steps", "rate"),
    [("vdsr", 9000, 6e-4), ("vdsr-small", 9000, 1e-3), ("dncnn", 10_000, 4e-4), ("rcan", 9000, 4e-4)],
)
def test_each_backbone_has_steps_and_a_rate_of_its_own_but_for_what_is_given(
    backbone: str, steps: int, rate: float
) -> None:
    assert schedule_of(backbone, None, 8, None) == TransferSchedule(steps, 8, learning_rate=rate)
    assert schedule_of(backbone, 0, 4, None) == TransferSchedule(0, 4, learning_rate=rate)
    assert schedule_of(backbone, None, 4, 0.25) == TransferSchedule(steps, 4, learning_rate=0.25)


def test_the_bundle_can_be_loaded_whatever_networks_were_asked_for(clean: Path, tmp_path: Path) -> None:
    every = [f"{name}:{unshuffle}" for name in BACKBONES for unshuffle in (4, 1, 2)]
    prior = train(clean, tmp_path / "all", network=[*every, every[0]], drn_steps=0, theta_steps=0, expert_steps=0)
    assert prior.thetas.keys() == {each.replace(":", "-u") for each in every}
    for name in BACKBONES:
        for unshuffle in (1, 2, 4):
            assert prior.start(build(name, unshuffle, seed=5), name), (name, unshuffle)


@pytest.mark.parametrize(
    "network", ["resnet:2", "vdsr:3", "vdsr:8", "vdsr:0", "vdsr:", "vdsr", ":2", "2:vdsr", "vdsr:2:2"]
)
def test_networks_that_there_are_not_are_refused_before_anything_is_written(
    clean: Path, tmp_path: Path, network: str
) -> None:
    with pytest.raises(typer.BadParameter, match=f"^{network} is no network; known are vdsr:1, "):
        train(clean, tmp_path / "none", network=["vdsr:2", network])
    assert [path.name for path in tmp_path.iterdir()] == ["clean"]


@pytest.mark.parametrize("name", ["missing", "empty", "small"])
def test_a_folder_without_photographs_is_refused_before_anything_is_written(
    clean: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    (clean / "too-small.png").rename(tmp_path / "small" / "too-small.png")
    with pytest.raises(typer.BadParameter, match=name):
        train_prior([clean, tmp_path / name], tmp_path / "none")
    assert not list(tmp_path.glob("none*"))


def test_a_network_is_what_the_loop_alone_makes_of_it_and_what_that_left_is_gone_on_with(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build("dncnn", 4, 3)
    images = load_photographs([clean]) + generated_images(3)
    schedule = TransferSchedule(2, 2, learning_rate=4e-4)
    work = tmp_path / "prior.work"
    work.mkdir()
    with training_bars() as progress:
        loss = train_network(network, "dncnn-u4", images, list(PAPERS), 3, schedule, work, progress)
    options: dict[str, Any] = {"network": ["vdsr:2", "dncnn:4"], "seed": 3, "theta_steps": 2, "expert_steps": 0}
    alone = train(clean, tmp_path / "alone", **options)
    steps: list[int] = []

    def noted(network: SameSize, *args: Any) -> Tensor:
        steps.append(network.unshuffle)
        return transfer_step(network, *args)

    monkeypatch.setattr(prior_loops, "transfer_step", noted)
    after = train(clean, tmp_path / "prior", **options)
    assert steps == [2, 2]  # Of the other network.
    for prior in (alone, after):
        assert prior.card["thetas"]["dncnn-u4"]["loss"] == loss
        kept = prior.thetas["dncnn-u4"]
        assert all(torch.equal(value.half(), kept[name]) for name, value in network.state_dict().items())


def test_what_is_measured_in_the_end_are_photographs_that_took_no_part(
    clean: Path, tmp_path: Path, photographs: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = tmp_path / "unseen"
    unseen.mkdir()
    Image.fromarray(photographs["coffee"].permute(1, 2, 0).numpy()).save(unseen / "coffee.png")
    prior = train(clean, tmp_path / "prior", expert_steps=0, measure=[unseen])
    metrics = prior.card["metrics"]
    assert [image["name"] for image in metrics["images"]] == ["coffee.png"]
    assert metrics["training_images_known"]
    assert metrics["psnr_db"].keys() == {"vdsr-u2"}
    assert metrics["psnr_db"]["vdsr-u2"].keys() == set(PAPERS)
    assert "vdsr-u2" in capsys.readouterr().out
    without = train(clean, tmp_path / "prior", expert_steps=0)
    assert (without.version, equal(without, prior)) == (prior.version, True)


def test_photographs_to_measure_on_that_are_trained_on_are_refused_before_anything_is_written(
    tmp_path: Path, photographs: dict[str, Tensor]
) -> None:
    for folder, names in {"clean": ("coffee",), "unseen": ("chelsea", "coffee")}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            pixels = photographs[name].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}-{folder}.png")
    with pytest.raises(typer.BadParameter, match=r"trained on coffee-unseen\.png:"):
        train(tmp_path / "clean", tmp_path / "none", measure=[tmp_path / "unseen"])
    assert not list(tmp_path.glob("none*"))


def test_training_moves_every_part_of_the_prior(clean: Path, tmp_path: Path) -> None:
    train_prior([clean], tmp_path / "none", drn_steps=0, theta_steps=0, expert_steps=0)
    untrained, trained = load_prior(tmp_path / "none"), train(clean, tmp_path / "some")
    assert untrained.version != trained.version
    for name, value in trained.drn.named_parameters():
        assert not torch.equal(value, untrained.drn.get_parameter(name)), name
    for name, weights in trained.thetas["vdsr-u2"].items():
        assert not torch.equal(weights, untrained.thetas["vdsr-u2"][name]) or "weight" not in name, name
    for task, expert in trained.experts.items():
        last = convolution(untrained.experts[task], -1).weight
        assert not torch.equal(convolution(expert, -1).weight, last), task


def test_variants_of_the_network_are_trained_and_remembered(clean: Path, tmp_path: Path) -> None:
    def variant(edges: Edges, memory_nodes: int, affinity: Literal["scaled", "literal"]) -> Prior:
        output = tmp_path / edges
        train_prior(
            [clean],
            output,
            drn_steps=2,
            theta_steps=0,
            expert_steps=0,
            edges=edges,
            memory_nodes=memory_nodes,
            affinity=affinity,
        )
        return load_prior(output)

    variants: list[tuple[Edges, int, Literal["scaled", "literal"]]] = [
        ("cosine", 0, "scaled"),
        ("l1", 3, "literal"),
        ("l2", 3, "scaled"),
    ]
    for edges, memory_nodes, affinity in variants:
        shape = variant(edges, memory_nodes, affinity).drn.shape
        assert (shape.edges, shape.memory_nodes, shape.affinity) == (edges, memory_nodes, affinity)


def test_a_run_with_other_edges_does_not_go_on_with_the_weights_of_the_first(clean: Path, tmp_path: Path) -> None:
    def trained(output: str, edges: Edges) -> Prior:
        train_prior([clean], tmp_path / output, drn_steps=2, theta_steps=0, expert_steps=0, edges=edges)
        return load_prior(tmp_path / output)

    trained("same", "cosine")
    assert equal(trained("same", "l1"), trained("alone", "l1"))

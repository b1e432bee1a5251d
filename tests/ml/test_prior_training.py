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

from ml import backbones, prior_training
from ml.backbones import dncnn, vdsr
from ml.dead_leaves import dead_leaves
from ml.distortions import DISTORTIONS, PAPERS
from ml.drn import DrnShape
from ml.edges import Edges
from ml.images import to_uint8
from ml.prior import Prior, load_prior
from ml.prior_training import train_prior
from ml.relation import drn_step
from tests.layers import convolution

pytestmark = pytest.mark.usefixtures("few_leaves")
Seeded = Callable[[int], torch.Generator]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.BACKBONES, "vdsr", lambda unshuffle: vdsr(unshuffle, depth=4, width=8))
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
    steps = {"drn_steps": 3, "theta_steps": 3, "batch": 2, "expert_steps": 1}
    train_prior([clean], output, licence="CC0", **steps | options)
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
    whole = train(clean, tmp_path / "whole")
    monkeypatch.setattr(prior_training, "SAVE_EVERY_S", -1.0)
    interruptions = [("drn_step", 2), ("transfer_step", 1), ("transfer_step", 0)]
    for name, at in interruptions:
        real: Callable[..., Any] = getattr(prior_training, name)

        def stop(*args: object, _real: Callable[..., Any] = real, _at: int = at, **kwargs: object) -> Any:
            step = kwargs.get("step", args[-1])
            if step == _at:
                raise InterruptedError
            return _real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(prior_training, name, stop)
            with pytest.raises(InterruptedError):
                train(clean, tmp_path / "resumed")
    steps: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        steps.append(1)
        return drn_step(*args, **kwargs)

    monkeypatch.setattr(prior_training, "drn_step", counted)
    resumed = train(clean, tmp_path / "resumed")
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
    assert (card["drn_steps"], card["theta_steps"], card["theta_batch"], card["seed"]) == (3, 3, 2, 0)
    assert list(prior.thetas) == ["vdsr-u2"]
    assert prior.experts.keys() == DISTORTIONS.keys()
    assert card["expert_steps"] == 1
    assert prior.version.startswith(card["date"])


def test_other_backbones_may_be_asked_for_and_unknown_ones_are_refused(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backbones.BACKBONES, "dncnn", lambda unshuffle: dncnn(unshuffle, depth=3, width=4))
    train_prior(
        [clean], tmp_path / "two", drn_steps=0, theta_steps=1, batch=1, expert_steps=0, backbone=["dncnn", "vdsr"]
    )
    assert load_prior(tmp_path / "two").thetas.keys() == {"dncnn-u2", "vdsr-u2"}
    with pytest.raises(typer.BadParameter, match="resnet"):
        train_prior([clean], tmp_path / "none", backbone=["resnet"])
    assert not (tmp_path / "none.work").exists()


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

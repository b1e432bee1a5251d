"""A prior learns to rank distortions that came after it, and is not trained for that."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor

from ml import prior_extension
from ml.backbones import build
from ml.distortions import DISTORTIONS
from ml.images import digest_of
from ml.prior import Prior, load_prior, save_prior, theta_name
from ml.prior_extension import extend_prior
from ml.relation import compute_prototypes
from ml.transferability import fresh_expert
from tests.layers import convolution

pytestmark = pytest.mark.usefixtures("few_leaves")


@pytest.fixture
def clean(tmp_path: Path, photographs: dict[str, Tensor]) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    for name in ("chelsea", "coffee"):
        pixels = photographs[name][:, 40:240, 60:260]
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def old(tiny_prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that knows three distortions, of three samples each, and little data to extend it with."""
    monkeypatch.setattr(prior_extension, "PROTOTYPE_SAMPLES", 3)
    path = tmp_path / "old.safetensors"
    thetas = {theta_name("vdsr", 4): build("vdsr", 4, seed=0).state_dict()}
    card = {"licence": "CC0", "tasks": ["bicubic", "noise", "mild"]}
    save_prior(path, replace(tiny_prior, thetas=thetas, card=card))
    return path


def extended(old: Path, clean: Path) -> Prior:
    output = old.with_name("new.safetensors")
    extend_prior([clean], output, old, licence="CC BY 4.0", expert_steps=1)
    return load_prior(output)


def test_what_there_was_stays_and_the_rest_of_the_catalogue_comes_after_it(old: Path, clean: Path) -> None:
    before, after = load_prior(old), extended(old, clean)
    assert after.prototypes.names[:3] == before.prototypes.names
    assert set(after.prototypes.names) == set(DISTORTIONS)
    assert torch.equal(after.prototypes.vectors[:3], before.prototypes.vectors)
    assert torch.equal(after.prototypes.samples[:3], before.prototypes.samples)
    assert torch.allclose(after.prototypes.vectors.norm(dim=1), torch.ones(17), atol=1e-5)
    for name, value in before.drn.state_dict().items():
        assert torch.equal(value, after.drn.state_dict()[name])
    (theta,) = before.thetas
    assert after.thetas.keys() == {theta}
    assert all(torch.equal(value, after.thetas[theta][name]) for name, value in before.thetas[theta].items())
    assert after.version != before.version


def test_the_card_tells_what_was_trained_from_what_was_added(
    old: Path, clean: Path, photographs: dict[str, Tensor]
) -> None:
    card = extended(old, clean).card
    assert card["tasks"] == ["bicubic", "noise", "mild"]
    assert card["licence"] == "CC0"
    (extension,) = card["extensions"]
    assert extension["of"] == load_prior(old).version
    assert set(extension["tasks"]) == set(DISTORTIONS) - {"bicubic", "noise", "mild"}
    assert (extension["licence"], extension["photographs"], extension["seed"]) == ("CC BY 4.0", 2, 0)
    assert extension["images"] == [
        {"name": f"{name}.png", "sha256": digest_of([photographs[name][:, 40:240, 60:260]])}
        for name in ("chelsea", "coffee")
    ]
    assert all(-1 <= value <= 1 for value in extension["silhouettes"].values())
    assert set(extension["silhouettes"]) == set(DISTORTIONS)


def test_an_added_prototype_is_the_one_that_the_network_gives(
    old: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[Tensor] = []
    real: Callable[..., object] = compute_prototypes

    def remembered(drn: object, shown: list[Tensor], *rest: object) -> object:
        images.extend(shown)
        return real(drn, shown, *rest)

    monkeypatch.setattr(prior_extension, "compute_prototypes", remembered)
    after = extended(old, clean)
    alone = compute_prototypes(load_prior(old).drn, images, ["speckle"], 3, seed=0)
    assert torch.allclose(
        after.prototypes.vectors[after.prototypes.names.index("speckle")], alone.vectors[0], atol=1e-6
    )


def test_experts_are_trained_where_there_is_none_and_kept_where_there_is(
    old: Path, clean: Path, tiny_prior: Prior
) -> None:
    kept = fresh_expert(77)
    save_prior(old, replace(load_prior(old), experts={"noise": kept}))
    after = extended(old, clean)
    assert after.experts.keys() == DISTORTIONS.keys()
    for name, value in kept.state_dict().items():
        assert torch.equal(after.experts["noise"].state_dict()[name], value.half().float())
    assert set(after.card["extensions"][0]["experts"]) == DISTORTIONS.keys() - {"noise"}
    assert (convolution(after.experts["blur"], -1).weight != 0).any()  # It starts at zero.


def test_a_bundle_that_lacks_nothing_but_experts_keeps_its_prototypes(old: Path, clean: Path) -> None:
    whole = extended(old, clean)
    older = old.with_name("older.safetensors")
    save_prior(older, replace(whole, experts={}))
    again = extended(older, clean)
    assert again.prototypes.names == whole.prototypes.names
    assert torch.equal(again.prototypes.vectors, whole.prototypes.vectors)
    assert again.experts.keys() == DISTORTIONS.keys()
    assert again.card["extensions"][-1]["tasks"] == []


def test_a_prior_that_knows_all_is_left_alone(old: Path, clean: Path) -> None:
    extended(old, clean)
    with pytest.raises(typer.Exit):
        extend_prior([clean], old.with_name("newer.safetensors"), old.with_name("new.safetensors"))
    assert not old.with_name("newer.safetensors").exists()

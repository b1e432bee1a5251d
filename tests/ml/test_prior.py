"""The prior as a bundle."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml import checkpoint
from ml.backbones import SameSize
from ml.drn import DistortionRelationNetwork
from ml.pairs import TargetPair
from ml.prior import Prior, UnusablePrior, load_prior, round_to_half, save_prior
from ml.relation import relate
from ml.transferability import fresh_expert
from tests.layers import convolution

pytestmark = pytest.mark.usefixtures("tiny_jobs")  # The prior below fits their small backbone.


@pytest.fixture
def path(tiny_prior: Prior, tmp_path: Path) -> Path:
    save_prior(tmp_path / "prior", tiny_prior)
    return tmp_path / "prior"


def test_a_prior_comes_back_and_relates_the_same(
    path: Path, tiny_prior: Prior, target_pairs: Callable[..., list[TargetPair]]
) -> None:
    loaded = load_prior(path)
    assert loaded.version == tiny_prior.version
    assert loaded.card == tiny_prior.card
    assert loaded.drn.shape == tiny_prior.drn.shape
    assert not loaded.drn.training
    assert loaded.prototypes.names == tiny_prior.prototypes.names
    assert torch.equal(loaded.prototypes.vectors, tiny_prior.prototypes.vectors)
    assert torch.allclose(loaded.prototypes.samples, tiny_prior.prototypes.samples, atol=1e-3)
    pairs = target_pairs(2)
    before = relate(tiny_prior.drn, tiny_prior.prototypes, pairs, 0)
    after = relate(loaded.drn, loaded.prototypes, pairs, 0)
    assert torch.equal(after.gamma, before.gamma)


def test_pre_trained_weights_come_back_in_half_precision(
    path: Path, tiny_prior: Prior, random_network: Callable[..., SameSize]
) -> None:
    loaded, network = load_prior(path), random_network(2, seed=77)
    assert loaded.has_theta("vdsr", 2)
    assert loaded.start(network, "vdsr")
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value.half(), tiny_prior.thetas["vdsr-u2"][name].half())
        assert torch.equal(value, value.half().float())


def test_experts_come_back_in_half_precision_one_tick_each_and_an_older_bundle_has_none(
    path: Path, tiny_prior: Prior, tmp_path: Path
) -> None:
    assert load_prior(path).experts == {}
    experts = {"noise": fresh_expert(1), "mild": fresh_expert(2)}
    save_prior(tmp_path / "experts", replace(tiny_prior, experts=experts))
    ticks: list[None] = []
    loaded = load_prior(tmp_path / "experts", lambda: ticks.append(None)).experts
    assert len(ticks) == 1 + 1 + 2  # The DRN, a theta, and the experts.
    assert loaded.keys() == experts.keys()
    for name, expert in experts.items():
        assert not loaded[name].training
        for key, value in expert.state_dict().items():
            assert torch.equal(loaded[name].state_dict()[key], value.half().float())
    tensors, facts = checkpoint.load(path)
    checkpoint.save(tmp_path / "older", tensors, {name: fact for name, fact in facts.items() if name != "experts"})
    assert load_prior(tmp_path / "older").experts == {}


def test_where_the_prior_knows_nothing_of_a_backbone_the_network_stays_as_it_is(
    tiny_prior: Prior, random_network: Callable[..., SameSize]
) -> None:
    network = random_network(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert not tiny_prior.has_theta("vdsr", 1)
    assert not tiny_prior.start(network, "vdsr")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_training_a_network_leaves_the_priors_weights_alone(
    tiny_prior: Prior, random_network: Callable[..., SameSize]
) -> None:
    network = random_network(2)
    tiny_prior.start(network, "vdsr")
    before = tiny_prior.thetas["vdsr-u2"]["body.0.weight"].clone()
    with torch.no_grad():
        convolution(network, 0).weight.add_(1)
    assert torch.equal(tiny_prior.thetas["vdsr-u2"]["body.0.weight"], before)


def test_rounding_gives_weights_that_half_precision_holds(tiny_drn: DistortionRelationNetwork) -> None:
    with torch.no_grad():
        tiny_drn.memory.add_(1e-5)
    round_to_half(tiny_drn)
    for value in tiny_drn.state_dict().values():
        assert torch.equal(value, value.half().to(value.dtype)) or not value.is_floating_point()
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_a_truncated_prior_is_refused(path: Path, percent: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * percent // 100])
    with pytest.raises(UnusablePrior, match="not a whole checkpoint"):
        load_prior(path)


def test_a_missing_prior_is_refused_with_its_path_and_the_way_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UnusablePrior, match="none cannot be used as a prior; rebuild it with `drtl prior train`"):
        load_prior(tmp_path / "none")


def test_another_file_of_ours_is_no_prior(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1)}, {"step": 1})
    with pytest.raises(UnusablePrior):
        load_prior(tmp_path / "c")


@pytest.mark.parametrize("misfit", ["another width", "another unshuffle", "a tensor missing", "an unknown backbone"])
def test_pre_trained_weights_that_do_not_fit_their_backbone_are_refused(
    tiny_prior: Prior, random_network: Callable[..., SameSize], tmp_path: Path, misfit: str
) -> None:
    theta = tiny_prior.thetas["vdsr-u2"]
    thetas = {
        "another width": {"vdsr-u2": dict(random_network(2, width=6).state_dict())},
        "another unshuffle": {"vdsr-u1": theta},
        "a tensor missing": {"vdsr-u2": {name: value for name, value in theta.items() if name != "body.0.bias"}},
        "an unknown backbone": {"unknown-u2": theta},
    }[misfit]
    save_prior(tmp_path / "p", replace(tiny_prior, thetas=thetas))
    with pytest.raises(UnusablePrior):
        load_prior(tmp_path / "p")


def test_distortions_that_the_code_does_not_know_are_refused(tiny_prior: Prior, tmp_path: Path) -> None:
    """The transfer could not apply them."""
    prototypes = replace(tiny_prior.prototypes, names=["bicubic", "scratches", "mild"])
    save_prior(tmp_path / "p", replace(tiny_prior, prototypes=prototypes))
    with pytest.raises(UnusablePrior, match="scratches"):
        load_prior(tmp_path / "p")


def test_prototypes_of_another_size_than_the_nodes_are_refused(tiny_prior: Prior, tmp_path: Path) -> None:
    """As a prior of before the strength was coded in nine values has them."""
    vectors, samples = tiny_prior.prototypes.vectors[:, :16], tiny_prior.prototypes.samples[:, :, :16]
    prototypes = replace(tiny_prior.prototypes, vectors=vectors, samples=samples)
    save_prior(tmp_path / "p", replace(tiny_prior, prototypes=prototypes))
    with pytest.raises(UnusablePrior, match="72"):
        load_prior(tmp_path / "p")


@pytest.mark.parametrize(
    ("part", "shape", "said"),
    [
        ("vectors", (2, 72), "no nodes of 72"),
        ("samples", (3, 3, 71), "no samples of 72"),
        ("samples", (2, 3, 72), "no samples of 72"),
        ("samples", (3, 72), "no samples of 72"),
        ("samples", (3, 0, 72), "no samples of 72"),
        ("psnr_db", (2,), "no strength"),
        ("psnr_db", (3, 1), "no strength"),
        ("psnr_db", (), "no strength"),
    ],
)
def test_parts_of_prototypes_that_do_not_fit_each_other_are_refused(
    path: Path, part: str, shape: tuple[int, ...], said: str
) -> None:
    tensors, facts = checkpoint.load(path)
    checkpoint.save(path, tensors | {f"prototypes.{part}": torch.rand(shape)}, facts)
    with pytest.raises(UnusablePrior, match=said):
        load_prior(path)


@pytest.mark.parametrize("part", ["vectors", "samples", "psnr_db"])
def test_prototypes_that_are_not_finite_are_refused(path: Path, part: str) -> None:
    tensors, facts = checkpoint.load(path)
    tensors[f"prototypes.{part}"].view(-1)[-1] = torch.nan
    checkpoint.save(path, tensors, facts)
    with pytest.raises(UnusablePrior, match="not finite"):
        load_prior(path)


@pytest.mark.parametrize("odd", [{"edges": "cosinus"}, {"affinity": "printed"}], ids=str)
def test_a_relation_network_of_a_variant_that_there_is_not_is_refused(path: Path, odd: dict[str, str]) -> None:
    tensors, facts = checkpoint.load(path)
    checkpoint.save(path, tensors, facts | {"drn": facts["drn"] | odd})
    with pytest.raises(UnusablePrior):
        load_prior(path)


def one_odd(name: str, *values: object) -> list[dict[str, object]]:
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    "odd",
    [
        *one_odd("thetas", ["rcan-u3"], [3], ["vdsr"], ["vdsr-u2", "vdsr-u2"], {}, None),
        *one_odd("names", [], [3, 4, 5], ["noise"] * 3, {}, "noise"),
        *one_odd("experts", [3], {}, None),
        *one_odd("version", None, 3),
        *one_odd("card", None, ["CC0"]),
    ],
    ids=str,
)
def test_facts_that_are_no_priors_are_refused(path: Path, odd: dict[str, object]) -> None:
    tensors, facts = checkpoint.load(path)
    checkpoint.save(path, tensors, facts | odd)
    with pytest.raises(UnusablePrior):
        load_prior(path)


def test_a_prior_may_hold_no_pre_trained_weights(tiny_prior: Prior, tmp_path: Path) -> None:
    save_prior(tmp_path / "p", replace(tiny_prior, thetas={}))
    assert load_prior(tmp_path / "p").thetas == {}

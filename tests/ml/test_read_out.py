"""The last layer fitted in closed form: what it may change, and that it is the fit that it claims to be."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ml import read_out
from ml.backbones import BackboneName, SameSize, build, rcan, rdn
from ml.images import from_uint8
from ml.pairs import TargetPair
from ml.read_out import (
    CROP,
    crops_of_a_refit,
    disjoint_tiles,
    fit_last_layer,
    gains_left_out,
    last_layer,
    moments_of_pairs,
    own_read_out,
)

Pairs = Callable[..., list[TargetPair]]
NETWORKS: dict[str, Callable[[], SameSize]] = {
    "vdsr": lambda: build("vdsr", 4, seed=1),
    "vdsr-small": lambda: build("vdsr-small", 4, seed=1),
    "dncnn": lambda: build("dncnn", 4, seed=1),
    "rcan": lambda: rcan(4, groups=1, blocks=1),
    "rdn": lambda: rdn(4, blocks=1, layers=2),
}


@pytest.fixture
def dark_pairs(target_pairs: Pairs) -> Pairs:
    """What one image lacks of clean tells what another lacks."""

    def made(count: int, height: int, width: int) -> list[TargetPair]:
        pairs = target_pairs(count, height=height, width=width)
        return [replace(pair, distorted=(0.8 * pair.clean.float()).round().to(torch.uint8)) for pair in pairs]

    return made


def error(network: SameSize, pairs: list[TargetPair]) -> float:
    """Mean square error on the whole of each pair."""
    with torch.no_grad():
        squares = [
            (network(from_uint8(pair.distorted)[None])[0] - from_uint8(pair.clean)).square().mean() for pair in pairs
        ]
    return float(torch.stack(squares).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_of_any_backbone_is_fitted_and_nothing_else(name: str, dark_pairs: Pairs) -> None:
    pairs = dark_pairs(3, height=CROP, width=CROP)  # All crops are the whole of a pair.
    network = NETWORKS[name]().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    untouched = error(network, pairs)
    fit_last_layer(network, pairs, seed=0)
    last = {f"body.{key}" for key, module in network.body.named_modules() if module is last_layer(network)}
    changed = {key.rpartition(".")[0] for key, value in network.state_dict().items() if not value.equal(before[key])}
    assert changed == last
    assert error(network, pairs) < untouched


@pytest.mark.parametrize("ridge", [1.0, 0.01])
def test_it_is_the_least_squares_solution_with_its_penalty(
    ridge: float, dark_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the minimum every weight's gradient of the summed squares is that of its penalty, reversed."""
    monkeypatch.setattr(read_out, "RIDGES", (ridge,))
    monkeypatch.setattr(read_out, "autocast", nullcontext)  # Features in single precision on any processor.
    pairs = dark_pairs(2, height=CROP, width=CROP)
    network = NETWORKS["vdsr"]()
    last = last_layer(network)
    torch.nn.init.normal_(last.weight, std=1e-4, generator=torch.Generator().manual_seed(3))
    own = own_read_out(network)
    power = torch.stack([fold.gram.diagonal() for fold in moments_of_pairs(network, pairs, seed=0)]).sum(dim=0)  # (f,)
    fit_last_layer(network, pairs, seed=0)
    change = own_read_out(network) - own  # (f, c)
    assert float(change.abs().max()) > 0
    network.double().zero_grad()
    for pair in pairs:
        left = network(from_uint8(pair.distorted)[None].double())[0] - from_uint8(pair.clean).double()
        loss = read_out.CROPS_PER_PAIR * left.square().sum() / 2
        loss.backward()
    assert last.weight.grad is not None
    assert last.bias is not None
    assert last.bias.grad is not None
    gradient = torch.cat([last.weight.grad.flatten(1), last.bias.grad[:, None]], dim=1).T  # (f, c)
    expected = -ridge * power[:, None] * change
    assert torch.allclose(gradient, expected, rtol=1e-2, atol=5e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [(64, 40, [32, 32]), (48, 30, [48]), (128, 100, [64, 64]), (250, 200, [64] * 6), (48, 70, [32, 32])],
)
def test_what_is_left_out_of_a_single_pair_shares_no_pixel_with_the_rest(
    height: int, width: int, sides: list[int], seeded: Callable[[int], torch.Generator]
) -> None:
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).T.reshape(2, height, width)  # y, x
    image = torch.cat([places, places[:1]]).to(torch.uint8)  # (3, h, w); no side is longer than 256
    tiles = [tile for tile, _ in disjoint_tiles([image, image], 6, seeded(3))]
    assert [tile.shape[1] for tile in tiles] == sides
    seen = torch.cat([tile[:2].flatten(1) for tile in tiles], dim=1)  # (2, n)
    assert seen.unique(dim=1).shape == seen.shape


def test_of_a_pair_too_small_to_leave_anything_out_the_layer_stays(dark_pairs: Pairs) -> None:
    network = NETWORKS["vdsr"]()
    before = last_layer(network).weight.clone()
    fit_last_layer(network, dark_pairs(1, height=48, width=30), seed=0)
    assert last_layer(network).weight.equal(before)
    fit_last_layer(network, dark_pairs(1, height=64, width=40), seed=0)
    assert not last_layer(network).weight.equal(before)


def test_the_same_pairs_and_seed_give_the_same_layer(dark_pairs: Pairs) -> None:
    first, second = NETWORKS["vdsr"](), NETWORKS["vdsr"]()
    for network in (first, second):
        torch.rand(7)  # Nothing depends on the global generator.
        fit_last_layer(network, dark_pairs(3, 80, 90), seed=5)
    assert last_layer(first).weight.equal(last_layer(second).weight)
    third = NETWORKS["vdsr"]()
    fit_last_layer(third, dark_pairs(3, 80, 90), seed=6)
    assert not last_layer(first).weight.equal(last_layer(third).weight)


def test_features_are_computed_as_in_training_and_products_exactly(
    dark_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated where the processor has no bfloat16: the fit is that of rounded features, not a rounded fit."""
    monkeypatch.setattr(read_out, "autocast", lambda on: torch.autocast(on.type, dtype=torch.bfloat16))
    pairs, features = dark_pairs(3, height=70, width=80), read_out.features
    computed: list[torch.dtype] = []

    def seen(network: SameSize, image: Tensor) -> Tensor:
        found = features(network, image)
        computed.append(found.dtype)
        return found

    def rounded(network: SameSize, image: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return features(network, image).float()

    network, expected = NETWORKS["vdsr"](), NETWORKS["vdsr"]()
    monkeypatch.setattr(read_out, "features", seen)
    fit_last_layer(network, pairs, seed=0)
    assert set(computed) == {torch.bfloat16}
    monkeypatch.setattr(read_out, "features", rounded)
    monkeypatch.setattr(read_out, "autocast", nullcontext)
    fit_last_layer(expected, pairs, seed=0)
    assert last_layer(network).weight.any()
    assert torch.allclose(last_layer(network).weight, last_layer(expected).weight, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("pairs", "crops"), [(1, 16), (8, 16), (10, 16), (20, 8), (24, 6), (500, 6)])
def test_a_fit_after_training_sees_more_crops_of_few_pairs(pairs: int, crops: int) -> None:
    assert crops_of_a_refit(pairs) == crops


def test_where_no_fit_helps_on_the_pair_left_out_the_layer_stays(target_pairs: Pairs) -> None:
    same = [replace(pair, distorted=pair.clean) for pair in target_pairs(2)]
    network = NETWORKS["vdsr"]()
    fit_last_layer(network, same, seed=0)
    image = from_uint8(same[0].clean)[None]
    assert torch.equal(network(image), image)


def test_the_ridge_is_the_one_that_gains_most_on_what_is_left_out(
    dark_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_out, "autocast", nullcontext)  # Features in single precision on any processor.
    pairs = dark_pairs(4, height=70, width=80)
    network = NETWORKS["vdsr"]()
    folds, own = moments_of_pairs(network, pairs, seed=0), own_read_out(network)
    gains = {ridge: float(gains_left_out(folds, own, ridge).mean()) for ridge in read_out.RIDGES}
    best = max(gains, key=lambda ridge: gains[ridge])
    fit_last_layer(network, pairs, seed=0)
    alone = NETWORKS["vdsr"]()
    monkeypatch.setattr(read_out, "RIDGES", (best,))
    fit_last_layer(alone, pairs, seed=0)
    assert last_layer(network).weight.equal(last_layer(alone).weight)
    assert len(set(gains.values())) == len(gains)


@pytest.mark.parametrize("backbone", ["vdsr", "dncnn"])
@pytest.mark.parametrize("shape", [(1, 70, 70), (1, 33, 47), (2, 33, 47), (3, 9, 200)])
def test_one_pair_small_ones_and_odd_ones_are_fitted(
    backbone: BackboneName, shape: tuple[int, int, int], target_pairs: Pairs
) -> None:
    count, height, width = shape
    network = build(backbone, 2, seed=0)
    fit_last_layer(network, target_pairs(count, height=height, width=width), seed=0)
    weights: Tensor = last_layer(network).weight
    assert torch.isfinite(weights).all()


def test_it_can_be_stopped_before_any_pair_and_has_changed_nothing(target_pairs: Pairs) -> None:
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            raise InterruptedError

    network = NETWORKS["vdsr"]()
    with pytest.raises(InterruptedError):
        fit_last_layer(network, target_pairs(4), 0, tick)
    assert not last_layer(network).weight.any()

"""Models as files."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from ml import model_file
from ml.backbones import SameSize, build
from ml.model_file import pack, unpack
from tests.layers import convolution

CARD = {"backbone": "vdsr", "unshuffle": 2, "scale": 1, "gamma": {"noise": 0.5}, "sentence": "γ ≥ ½"}


@pytest.fixture
def network() -> SameSize:
    network = build("vdsr", 2, seed=3)
    with torch.no_grad():
        convolution(network, -1).weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    return network


@pytest.fixture
def path(network: SameSize, tmp_path: Path) -> Path:
    (tmp_path / "model").write_bytes(pack(network, CARD))
    return tmp_path / "model"


def test_a_model_comes_back_with_its_card_and_does_the_same(path: Path, network: SameSize, odd_image: Tensor) -> None:
    loaded, card = unpack(path)
    assert card == CARD
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(odd_image[None]), network.eval()(odd_image[None]))


def test_the_same_model_and_card_give_the_same_bytes(path: Path, network: SameSize) -> None:
    assert pack(network, CARD) == path.read_bytes()


@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_a_truncated_model_is_refused(path: Path, percent: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * percent // 100])
    with pytest.raises(ValueError, match="not a model of ours"):
        unpack(path)


@pytest.mark.parametrize("card", [CARD | {"backbone": "rcan-2"}, {"unshuffle": 2}])
def test_an_unknown_backbone_is_refused(card: dict[str, object], network: SameSize, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(pack(network, card))
    with pytest.raises(ValueError, match="unknown backbone"):
        unpack(tmp_path / "model")


@pytest.mark.parametrize(
    "card",
    [
        None,
        [],
        "vdsr",
        {},
        *({**CARD, "backbone": odd} for odd in (None, 3, ["vdsr"], dict[str, Any]())),
        *({**CARD, "unshuffle": odd} for odd in (None, 0, -2, 9, 150, 2.0, True, "2", [2])),
        *({**CARD, "scale": odd} for odd in (None, 0, 5, 1.5, True, "1")),
        {"backbone": "vdsr"},
        {"backbone": "vdsr", "unshuffle": 2},
    ],
    ids=str,
)
def test_a_malformed_card_is_refused_in_words_before_a_network_is_built(
    card: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_to_be_called(*_: object, **__: object) -> None:
        raise AssertionError("a network was built")

    (tmp_path / "model").write_bytes(save({}, {"card": json.dumps(card)}))
    monkeypatch.setattr(model_file, "build", not_to_be_called)
    with pytest.raises(ValueError, match=r"is not a model of ours \(its card"):
        unpack(tmp_path / "model")


QUANTILES = [1 + place / 32 for place in range(33)]
MATCH: dict[str, Any] = {
    "version": 1,
    "windows": 8,
    "mean": [0.5] * 25,
    "whitening": [1.0] * 325,
    "distances": dict.fromkeys(("1", "2", "4", "8", "16"), QUANTILES),
}
ODD_MATCHES: dict[str, list[Any]] = {
    "version": [None, "1", True, 1.0, [1]],
    "windows": [None, 0, 2.5, True, "8"],
    "mean": [
        *(None, 0.5, "0.5", {}, [0.5] * 24, [0.5] * 26),
        *([odd] + [0.5] * 24 for odd in (None, "0", [0.0], True, math.nan, math.inf, 10**400)),
    ],
    "whitening": [None, [1.0] * 324, [1.0] * 625, ["1"] + [1.0] * 324, [1e300] + [1.0] * 324],
    "distances": [
        *(None, [], {}, QUANTILES, {"4": QUANTILES}, MATCH["distances"] | {"3": QUANTILES}),
        *(
            MATCH["distances"] | {"4": odd}
            for odd in (
                *(None, dict[str, Any](), list[Any](), QUANTILES[1:], QUANTILES[::-1]),
                *([None] * 33, [math.nan] * 33, [-1.0] * 33),
            )
        ),
    ],
}


@pytest.mark.parametrize(
    "match",
    [
        *([], "close", 1, {}, MATCH | {"median": 3}),
        *({kept: MATCH[kept] for kept in MATCH if kept != name} for name in MATCH),
        *(MATCH | {name: odd} for name, odds in ODD_MATCHES.items() for odd in odds),
    ],
)
def test_a_malformed_reference_is_refused_with_the_card_and_not_after_all_the_work(
    match: object, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(save({}, {"card": json.dumps(CARD | {"match": match})}))
    with pytest.raises(ValueError, match=r"is not a model of ours \(its card's match"):
        unpack(tmp_path / "model")


@pytest.mark.parametrize("match", [None, MATCH, {"version": 99, "of": "other members"}], ids=["none", "ours", "newer"])
def test_a_card_may_have_a_reference_none_or_one_of_another_version(
    match: object, network: SameSize, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(pack(network, CARD | {"match": match}))
    assert unpack(tmp_path / "model")[1]["match"] == match


def test_a_card_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(save({}, {"card": "[" * 100_000}))
    with pytest.raises(ValueError, match="not a model of ours"):
        unpack(tmp_path / "model")


def test_a_card_that_does_not_fit_the_weights_is_refused(network: SameSize, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(pack(network, CARD | {"unshuffle": 1}))
    with pytest.raises(ValueError, match="not a model of ours"):
        unpack(tmp_path / "model")


def test_an_unshuffle_that_does_not_fit_the_backbone_is_refused(network: SameSize, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(pack(network, CARD | {"backbone": "rcan", "unshuffle": 3}))
    with pytest.raises(ValueError, match="not a model of ours"):
        unpack(tmp_path / "model")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a model of ours"):
        unpack(tmp_path / "none")


def test_loading_a_model_does_not_disturb_random_numbers(path: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    unpack(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_that_executes_is_ever_read(path: Path, random_network: Callable[..., SameSize]) -> None:
    """Weights are safetensors only: the file begins with the length of a JSON header."""
    assert path.read_bytes()[8:9] == b"{"
    assert "pickle" not in Path(str(model_file.__file__)).read_text(encoding="utf-8")


def test_a_file_of_something_else_is_refused_without_the_parser_s_words(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"something else " * 9)
    with pytest.raises(ValueError, match=r"not a model of ours \(no safetensors file, or a damaged one\)$"):
        unpack(tmp_path / "model")

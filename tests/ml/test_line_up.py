"""What a race is made of: its candidates, by scheme and options, and the clean images that they practise on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from ml import job
from ml.guidance import Guidance, guided, uniform
from ml.images import UnusableCleanImages, load_folder
from ml.job import clean_images, line_up
from ml.options import PRESETS, TrainingOptions
from ml.pairs import PairFile, Split
from ml.prior import Prior
from ml.race import Race
from ml.relation import Relation
from tests.layers import convolution

pytestmark = pytest.mark.usefixtures("tiny_jobs")
PairFiles = Callable[..., list[PairFile]]


@pytest.fixture
def lined_up(tiny_prior: Prior, parts: Split, relation: Relation) -> Callable[..., Race]:
    def make(**options: Any) -> Race:
        return line_up(TrainingOptions(**options), parts, 1, relation, tiny_prior, [])

    return make


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ({"scheme": "auto"}, ["scratch", "prior", "guided-transfer"]),
        ({"scheme": "auto", "init": "scratch"}, ["scratch", "guided-transfer"]),
        ({"scheme": "auto", "unshuffle": 1}, ["scratch", "guided-transfer"]),  # The prior has no such weights.
        ({"scheme": "auto", "preset": "draft"}, ["scratch", "prior"]),  # Which makes no transfer, unless asked to.
        ({"scheme": "auto", "preset": "draft", "transfer_steps": 2}, ["scratch", "prior", "guided-transfer"]),
        ({"scheme": "auto", "transfer_steps": 0}, ["scratch", "prior"]),
        ({"scheme": "baseline"}, ["scratch"]),
        ({"scheme": "pretrain"}, ["scratch", "uniform-transfer"]),
        ({"scheme": "drtl-pretrain"}, ["scratch", "guided-transfer"]),
        ({"scheme": "maml"}, ["scratch", "uniform-maml"]),
        ({"scheme": "drtl-maml"}, ["scratch", "guided-maml"]),
    ],
)
def test_a_scheme_lines_up_its_candidates(
    lined_up: Callable[..., Race], options: dict[str, Any], starts: list[str]
) -> None:
    race = lined_up(**options)
    assert [candidate.start for candidate in race.candidates] == starts
    assert race.held_back == (set() if options["scheme"] in {"auto", "baseline"} else {"scratch"})
    meta_learned = [candidate.start for candidate in race.candidates if candidate.meta is not None]
    assert meta_learned == [start for start in starts if start.endswith("maml")]


def test_candidates_start_from_what_their_name_says(lined_up: Callable[..., Race], tiny_prior: Prior) -> None:
    theta = tiny_prior.thetas["vdsr-u2"]["body.0.weight"]
    scratch, prior, guided = lined_up().candidates
    assert torch.equal(convolution(prior.network, 0).weight, theta)
    assert torch.equal(convolution(guided.network, 0).weight, theta)
    assert not torch.equal(convolution(scratch.network, 0).weight, theta)
    assert (scratch.mix, prior.mix) == (None, None)
    assert [candidate.from_prior for candidate in lined_up().candidates] == [False, True, True]
    assert not any(candidate.from_prior for candidate in lined_up(init="scratch").candidates)
    _, from_nothing = lined_up(init="scratch").candidates
    assert torch.equal(convolution(from_nothing.network, 0).weight, convolution(scratch.network, 0).weight)


def test_guided_transfer_is_weighted_by_the_relation_and_uniform_transfer_by_nothing(
    lined_up: Callable[..., Race], relation: Relation
) -> None:
    guided = lined_up(scheme="drtl-pretrain").candidates[1]
    uniform = lined_up(scheme="pretrain").candidates[1]
    assert guided.mix is not None
    assert guided.mix.chances is not None
    assert torch.equal(guided.mix.chances, relation.weights)
    assert uniform.mix is not None
    assert uniform.mix.gamma.tolist() == [1, 1, 1]


def test_guidance_reaches_every_guided_candidate_and_no_uniform_one(
    lined_up: Callable[..., Race], relation: Relation
) -> None:
    chosen: dict[str, Any] = {"guidance": "sample", "temperature": 0.2, "top_k": 1}
    expected = guided(relation, Guidance("sample", 0.2, 1)).chances
    assert expected is not None
    for scheme in ("auto", "drtl-pretrain", "drtl-maml"):
        mix = lined_up(scheme=scheme, **chosen).candidates[-1].mix
        assert mix is not None
        assert mix.chances is not None
        assert torch.equal(mix.chances, expected)
        assert torch.equal(mix.gamma, torch.ones(3))
    for scheme in ("pretrain", "maml"):
        mix = lined_up(scheme=scheme, **chosen).candidates[-1].mix
        assert mix is not None
        assert mix.chances is None


def test_the_top_k_of_all_are_learnt_alike_by_a_scheme_that_nothing_guides(
    lined_up: Callable[..., Race], relation: Relation
) -> None:
    for scheme in ("pretrain", "maml"):
        mix = lined_up(scheme=scheme, select="top-k", top_k=2).candidates[-1].mix
        assert mix is not None
        assert mix.shares().tolist() == uniform(relation, Guidance(top_k=2)).shares().tolist()
        assert sorted(mix.shares().tolist()) == [0.0, 0.5, 0.5]


def test_how_meta_learning_looks_ahead_is_the_presets_or_chosen(lined_up: Callable[..., Race]) -> None:
    assert lined_up(scheme="maml").candidates[1].meta == PRESETS["quick"].meta
    chosen = lined_up(scheme="drtl-maml", maml_order="first", inner_rate=0.25).candidates[1].meta
    assert chosen == replace(PRESETS["quick"].meta, order="first", inner_rate=0.25)


def test_after_the_few_steps_of_a_draft_last_layers_are_fitted_anew_unless_that_is_not_wanted(
    lined_up: Callable[..., Race],
) -> None:
    def refitted(**options: Any) -> list[str]:
        return [candidate.start for candidate in lined_up(**options).candidates if candidate.refit]

    assert refitted(preset="draft") == ["scratch", "prior"]
    assert refitted(preset="draft", linear_probe=False) == []
    assert refitted() == []


def test_what_comes_straight_from_the_prior_is_probed_unless_that_is_not_wanted(lined_up: Callable[..., Race]) -> None:
    def probed(**options: Any) -> list[str]:
        return [candidate.start for candidate in lined_up(**options).candidates if candidate.linear_probe]

    assert probed() == ["prior"]
    assert probed(linear_probe=False) == []
    assert probed(init="scratch") == []
    assert probed(scheme="drtl-pretrain") == []
    assert probed(scheme="drtl-pretrain", transfer_steps=0) == ["guided-transfer"]
    assert probed(scheme="maml", init="scratch", transfer_steps=0) == []


def test_every_start_is_fine_tuned_at_a_rate_of_its_own(lined_up: Callable[..., Race]) -> None:
    quick = PRESETS["quick"]
    rates = [quick.scratch_rate, quick.prior_rate, quick.finetune.learning_rate]
    assert [candidate.finetune.learning_rate for candidate in lined_up().candidates] == rates
    assert len(set(rates)) == 3
    nothing = lined_up(scheme="drtl-pretrain", init="scratch", transfer_steps=0).candidates[1]
    assert nothing.finetune.learning_rate == quick.scratch_rate


def test_another_backbone_is_trained_at_the_rates_that_it_wants(lined_up: Callable[..., Race]) -> None:
    quick = PRESETS["quick"].of("dncnn")
    scratch, guided = lined_up(backbone="dncnn").candidates
    assert scratch.finetune.learning_rate == PRESETS["quick"].scratch_rate
    assert guided.finetune.learning_rate == quick.finetune.learning_rate < PRESETS["quick"].finetune.learning_rate
    assert guided.trainee.optimizer.param_groups[0]["lr"] == guided.transfer.learning_rate
    assert guided.transfer.learning_rate == quick.transfer.learning_rate < PRESETS["quick"].transfer.learning_rate


def test_steps_may_be_chosen(lined_up: Callable[..., Race]) -> None:
    race = lined_up(transfer_steps=5, finetune_steps=9)
    assert {candidate.finetune.steps for candidate in race.candidates} == {9}
    assert [candidate.transfer_steps for candidate in race.candidates] == [0, 0, 5]
    assert race.planned_steps() == 9 + 5 + 9 + 6


def test_clean_images_come_from_the_operators_folder_the_trained_pairs_and_dead_leaves(
    tmp_path: Path, parts: Split
) -> None:
    Image.new("RGB", (120, 100), (10, 20, 30)).save(tmp_path / "large.png")
    Image.new("RGB", (120, 50)).save(tmp_path / "too-small.png")
    images = clean_images(parts, tmp_path, 64, seed=0)
    assert len(images) == 1 + len(parts.train) + 1
    assert torch.equal(images[0], load_folder(tmp_path)[0])
    assert all(torch.equal(image, pair.clean) for image, pair in zip(images[1:-1], parts.train, strict=True))
    held_out: list[Tensor] = [pair.clean for pair in parts.held_out]
    assert not any(image.shape == clean.shape and torch.equal(image, clean) for image in images for clean in held_out)


def test_a_clean_image_that_cannot_be_read_is_left_out_and_named_in_the_log(
    tmp_path: Path, parts: Split, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (120, 100)).save(tmp_path / "whole.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    assert len(clean_images(parts, tmp_path, 64, seed=0)) == 1 + len(parts.train) + 1
    assert "torn.png" in caplog.text
    (tmp_path / "whole.png").unlink()
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UnusableCleanImages, match=folder.name):
            clean_images(parts, folder, 64, seed=0)


def test_an_operators_folder_of_small_images_is_refused_and_says_why(
    tmp_path: Path, parts: Split, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (400, 63)).save(tmp_path / "strip.png")
    with pytest.raises(UnusableCleanImages, match="64 pixels"):
        clean_images(parts, tmp_path, 64, seed=0)
    assert "strip.png: 400×63" in caplog.text


def test_of_a_large_folder_as_many_images_are_drawn_as_fit_into_memory(
    tmp_path: Path, parts: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MOST_CLEAN_IMAGES", 3)
    for level in range(8):
        Image.new("RGB", (70, 80), (level,) * 3).save(tmp_path / f"{level}.png")

    def drawn(seed: int) -> list[int]:
        images = clean_images(parts, tmp_path, 64, seed)
        return [int(image[0, 0, 0]) for image in images[: len(images) - len(parts.train) - 1]]

    draws = [drawn(seed) for seed in (0, 0, 1, 2)]
    assert [len(levels) for levels in draws] == [3, 3, 3, 3]
    assert draws[0] == draws[1]
    assert draws[1:] != [draws[0]] * 3

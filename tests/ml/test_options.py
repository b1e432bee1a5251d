"""What a user may choose, and the schedules behind it."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import pytest

from app.api.schemas.jobs import JobOptions
from ml.guidance import Acting, Preference
from ml.options import PRESETS, Preset, Scheme, TrainingOptions

OFFERED = ("preset", "scheme", "guidance", "prefer")


def test_the_paper_preset_has_the_papers_numbers() -> None:
    paper = PRESETS["paper"]
    assert (paper.transfer.batch, paper.transfer.crop, paper.transfer.learning_rate) == (32, 64, 1e-4)
    assert (paper.finetune.batch, paper.finetune.crop, paper.finetune.learning_rate) == (32, 64, 1e-4)
    assert (paper.finetune.decay, paper.scratch_rate) == ("paper", 1e-4)


def test_no_preset_shakes_weights_that_know_something_more_than_those_that_do_not() -> None:
    assert all(preset.finetune.learning_rate <= preset.scratch_rate for preset in PRESETS.values())


def test_in_short_trainings_another_backbone_that_knows_something_is_trained_more_gently() -> None:
    def rates(**options: Any) -> tuple[float, ...]:
        own = TrainingOptions(**options).schedules
        return own.transfer.learning_rate, own.finetune.learning_rate, own.prior_rate

    for preset in ("draft", "quick"):
        (fraction,) = {
            one / other for one, other in zip(rates(preset=preset, backbone="dncnn"), rates(preset=preset), strict=True)
        }
        assert fraction == PRESETS["quick"].fractions["dncnn"] < 1
        assert TrainingOptions(preset=preset, backbone="dncnn").schedules.scratch_rate == PRESETS[preset].scratch_rate
    for preset in ("standard", "paper"):
        assert rates(preset=preset, backbone="dncnn") == rates(preset=preset)
    assert rates() == (5e-4, 1e-3, 5e-4)


def test_the_fewer_steps_the_larger_they_are() -> None:
    presets = sorted(PRESETS.values(), key=lambda preset: preset.finetune.steps)
    for fewer, more in itertools.pairwise(presets):
        assert fewer.prior_rate > more.prior_rate
        assert fewer.scratch_rate >= more.scratch_rate


def test_what_is_chosen_goes_before_the_preset() -> None:
    chosen = TrainingOptions(transfer_steps=0, finetune_steps=7, loss="shift_tolerant", maml_order="first").schedules
    assert (chosen.transfer.steps, chosen.finetune.steps, chosen.finetune.loss) == (0, 7, "shift_tolerant")
    assert chosen.meta == replace(PRESETS["quick"].meta, order="first")
    assert TrainingOptions().schedules == PRESETS["quick"].of("vdsr")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"inner_rate": -0.1}, "inner_rate"),
        ({"inner_rate": float("inf")}, "inner_rate"),
        ({"finetune_steps": 0}, "finetune_steps"),
        ({"finetune_steps": -3}, "finetune_steps"),
        ({"transfer_steps": -1}, "transfer_steps"),
    ],
)
def test_values_that_no_training_can_use_are_refused(options: dict[str, float], argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        TrainingOptions(**options)  # type: ignore[arg-type]  # Values of several options, by turns.


@pytest.mark.parametrize("name", ["transfer_steps", "finetune_steps"])
def test_the_service_and_the_method_begin_to_count_steps_at_the_same_number(name: str) -> None:
    least = {"transfer_steps": 0, "finetune_steps": 1}[name]
    makers: tuple[Callable[..., JobOptions | TrainingOptions], ...] = (
        partial(JobOptions, name="camera"),
        TrainingOptions,
    )
    for options in makers:
        assert getattr(options(**{name: least}), name) == least
        with pytest.raises(ValueError, match=name):
            options(**{name: least - 1})


def test_the_service_offers_what_the_method_knows() -> None:
    """`app` cannot import `ml`, so what may be chosen is written down twice."""
    offered = {name: get_args(JobOptions.model_fields[name].annotation) for name in OFFERED}
    assert offered == {
        "preset": get_args(Preset),
        "scheme": get_args(Scheme),
        "guidance": get_args(Acting),
        "prefer": get_args(Preference),
    }
    defaults = TrainingOptions()
    for name in ("scheme", "prefer", "guidance", "temperature", "top_k", "maml_order", "inner_rate", "linear_probe"):
        assert JobOptions.model_fields[name].default == getattr(defaults, name), name

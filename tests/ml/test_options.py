"""What a user may choose, and the schedules behind it."""

from typing import get_args

import pytest

from app.api.schemas.jobs import JobOptions
from ml.guidance import Acting, Preference
from ml.options import PRESETS, Scheme, TrainingOptions


def test_the_paper_preset_has_the_papers_numbers() -> None:
    paper = PRESETS["paper"]
    assert (paper.transfer.batch, paper.transfer.crop, paper.transfer.learning_rate) == (32, 64, 1e-4)
    assert (paper.finetune.batch, paper.finetune.crop, paper.finetune.learning_rate) == (32, 64, 1e-4)
    assert (paper.finetune.decay, paper.scratch_rate) == ("paper", 1e-4)


def test_no_preset_shakes_weights_that_know_something_more_than_those_that_do_not() -> None:
    assert all(preset.finetune.learning_rate <= preset.scratch_rate for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"inner_rate": -0.1}, "inner_rate"),
        ({"inner_rate": float("inf")}, "inner_rate"),
    ],
)
def test_values_that_no_training_can_use_are_refused(options: dict[str, float], argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        TrainingOptions(**options)  # type: ignore[arg-type]  # Values of several options, by turns.


def test_the_service_offers_what_the_method_knows() -> None:
    """`app` cannot import `ml`, so what may be chosen is written down twice."""
    offered = {name: get_args(JobOptions.model_fields[name].annotation) for name in ("scheme", "guidance", "prefer")}
    assert offered == {
        "scheme": get_args(Scheme),
        "guidance": get_args(Acting),
        "prefer": get_args(Preference),
    }
    defaults = TrainingOptions()
    for name in ("scheme", "prefer", "guidance", "temperature", "top_k", "maml_order", "inner_rate", "linear_probe"):
        assert JobOptions.model_fields[name].default == getattr(defaults, name), name

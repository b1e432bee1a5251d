"""What a user may choose, and the schedules behind it."""

from ml.options import PRESETS


def test_the_paper_preset_has_the_papers_numbers() -> None:
    paper = PRESETS["paper"]
    assert (paper.transfer.batch, paper.transfer.crop, paper.transfer.learning_rate) == (32, 64, 1e-4)
    assert (paper.finetune.batch, paper.finetune.crop, paper.finetune.learning_rate) == (32, 64, 1e-4)
    assert (paper.finetune.decay, paper.scratch_rate) == ("paper", 1e-4)


def test_no_preset_shakes_weights_that_know_something_more_than_those_that_do_not() -> None:
    assert all(preset.finetune.learning_rate <= preset.scratch_rate for preset in PRESETS.values())

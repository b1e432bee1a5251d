"""What a job says in the end. The numbers of whole jobs are looked at in test_job.py."""

from typing import Any, get_args

import pytest

from ml.race import Start
from ml.report import explain


def metrics(chosen: str, given: float, plain: float, reached: float, **others: Any) -> dict[str, Any]:
    numbers = {"input": {"psnr": given}, "baseline": {"psnr": plain}, "result": {"psnr": reached}}
    return {"protocol": "pairs", "held_out": ["a", "b"], "chosen": chosen} | numbers | others


def test_a_gain_is_stated_against_the_input_and_against_fine_tuning_from_nothing() -> None:
    assert explain(metrics("guided-transfer", 26.6, 27.1, 27.44), "gain") == (
        "Fine-tuning after guided transfer reached 27.44 dB on 2 held-out pairs, +0.84 dB over the input "
        "and +0.34 dB against fine-tuning from nothing with as many fine-tuning steps."
    )


def test_a_scheme_without_transfer_steps_is_not_said_to_have_transferred() -> None:
    said = explain(metrics("guided-transfer", 26.6, 27.1, 27.44), "gain", transferred=False)
    assert said.startswith("Fine-tuning without a transfer reached 27.44 dB")
    assert explain(metrics("prior", 26.6, 27.1, 27.44), "gain", transferred=False).startswith("Fine-tuning the pre-")


def test_fine_tuning_from_nothing_is_not_compared_with_itself() -> None:
    sentence = explain(metrics("scratch", 26.0, 27.0, 27.0, held_out=["a"]), "gain")
    assert sentence == "Fine-tuning from nothing reached 27.00 dB on 1 held-out pair, +1.00 dB over the input."


def test_no_gain_names_the_better_input() -> None:
    sentence = explain(metrics("prior", 26.6, 20.0, 26.5), "no_gain")
    assert "26.50 dB" in sentence
    assert "leaving the images as they are gives 26.60 dB" in sentence
    assert "not used by default" in sentence


@pytest.mark.parametrize(("plain", "best"), [(26.45, True), (26.5, True), (26.55, False), (27.0, False)])
def test_only_what_nothing_held_back_surpasses_is_called_the_best(plain: float, best: bool) -> None:
    sentence = explain(metrics("guided-transfer", 26.6, plain, 26.5), "no_gain")
    assert sentence.startswith("Fine-tuning after guided transfer ")
    assert "26.50 dB on 2 held-out pairs" in sentence
    assert ("best" in sentence) is best


@pytest.mark.parametrize("verdict", ["gain", "no_gain"])
@pytest.mark.parametrize("start", get_args(Start))
def test_every_start_can_be_explained(start: str, verdict: str) -> None:
    assert "on the held-out parts" in explain(metrics(start, 26.0, 27.0, 28.0, protocol="halves"), verdict)

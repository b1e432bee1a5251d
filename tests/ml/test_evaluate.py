"""Held-out evaluation and the gate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from ml.alignment import aligned_psnr
from ml.backbones import SameSize, build
from ml.evaluate import LEAST_GAIN_DB, Quality, mean, passes_gate, quality_of, quality_of_input
from ml.images import decode, from_uint8
from ml.metrics import psnr, ssim
from ml.model_file import pack
from ml.pairs import TargetPair
from ml.restore import RestoreOptions, load_restorer

Pairs = Callable[..., list[TargetPair]]


def test_an_untrained_network_is_as_good_as_doing_nothing(target_pairs: Pairs) -> None:
    pairs = target_pairs(2, 37, 31)
    assert quality_of(build("vdsr", 2, seed=0), pairs) == quality_of_input(pairs)


def test_quality_is_psnr_and_ssim_against_the_clean_image(target_pairs: Pairs) -> None:
    (pair,) = target_pairs(1, 37, 31)
    clean, distorted = from_uint8(pair.clean), from_uint8(pair.distorted)
    (quality,) = quality_of_input([pair])
    assert (quality.psnr, quality.ssim) == (psnr(distorted, clean), ssim(distorted, clean))
    assert quality.aligned_psnr == aligned_psnr(distorted, clean)


def test_evaluation_leaves_the_network_in_training_with_its_weights(
    random_network: Callable[..., SameSize], target_pairs: Pairs
) -> None:
    network = random_network(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quality_of(network, target_pairs(1, 37, 31))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_lost_never_wins(
    random_network: Callable[..., SameSize], target_pairs: Pairs, value: float
) -> None:
    """Its result would be black, which is near enough to a dark scene."""
    dark = [replace(pair, clean=pair.clean // 16) for pair in target_pairs(2, 37, 31)]
    network = random_network(2)
    with torch.no_grad():
        next(network.parameters())[0] = value
    lost, before = quality_of(network, dark), quality_of_input(dark)
    assert [quality.psnr for quality in lost] == [0.0, 0.0]
    assert mean(lost).psnr < mean(before).psnr
    assert not passes_gate(mean(lost), mean(before))
    assert network.training


def test_a_grey_image_is_measured_as_it_is_served(
    random_network: Callable[..., SameSize], target_pairs: Pairs, tmp_path: Path
) -> None:
    network = random_network(2, depth=20, width=64).eval()
    (pair,) = target_pairs(1, 48, 64)
    clean, distorted = (image[:1].expand(3, -1, -1) for image in (pair.clean, pair.distorted))
    grey = TargetPair("grey", clean, distorted, grey=True)
    Image.fromarray(distorted[0].numpy()).save(tmp_path / "grey.png")
    (tmp_path / "model").write_bytes(pack(network, {"backbone": "vdsr", "unshuffle": 2, "scale": 1}))
    restorer = load_restorer(tmp_path / "model")
    restorer.restore_file(tmp_path / "grey.png", tmp_path / "served.png", RestoreOptions())
    served = decode(tmp_path / "served.png")
    assert served.grey
    (measured,), (in_colour,) = quality_of(network, [grey]), quality_of(network, [replace(grey, grey=False)])
    assert measured.psnr == pytest.approx(psnr(served.pixels, from_uint8(grey.clean)), abs=1e-4)
    assert measured.psnr != in_colour.psnr


def test_psnr_is_averaged_in_db() -> None:
    assert mean([Quality(20, 0.5), Quality(40, 0.75)]) == Quality(30, 0.625)


@pytest.mark.parametrize(("gain", "passes"), [(-1.0, False), (0.0, False), (0.019, False), (0.021, True), (3.0, True)])
def test_a_model_must_beat_its_input(gain: float, passes: bool) -> None:
    assert LEAST_GAIN_DB == 0.02
    assert passes_gate(Quality(30 + gain, 0), Quality(30, 1)) is passes


def test_nothing_beats_perfect_images(target_pairs: Pairs) -> None:
    (pair,) = target_pairs(1, 37, 31)
    perfect = quality_of_input([TargetPair("same", pair.clean, pair.clean)])
    assert not passes_gate(mean(perfect), mean(perfect))

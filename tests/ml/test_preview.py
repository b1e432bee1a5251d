"""The preview of a training: where it looks, that it shows the weights of the moment, and that it leaves no trace."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from ml.backbones import SameSize
from ml.images import from_uint8, to_uint8
from ml.job import run_job
from ml.metrics import psnr
from ml.options import TrainingOptions
from ml.pairs import PairFile, TargetPair
from ml.preview import GRID, Viewpoint, busiest
from ml.prior import Prior, save_prior
from tests.ml.test_job import Recorder

PairFiles = Callable[..., list[PairFile]]


def pair_of(photograph: Tensor) -> TargetPair:
    noise = torch.randn(photograph.shape, generator=torch.Generator().manual_seed(3))
    return TargetPair("crop", photograph, to_uint8(from_uint8(photograph) + 0.1 * noise))


def panels(png: bytes, width: int) -> list[Tensor]:
    strip = np.asarray(Image.open(io.BytesIO(png)))
    return [torch.from_numpy(strip[:, k * width : (k + 1) * width].copy()).permute(2, 0, 1) for k in range(3)]


@given(height=st.integers(20, 70), width=st.integers(20, 70), side=st.integers(11, 80))
def test_the_window_lies_in_the_image_and_is_as_large_as_it_can_be(height: int, width: int, side: int) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * width))
    top, bottom, left, right = busiest(image, side)
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width
    assert (bottom - top, right - left) == (min(side, height), min(side, width))


def test_the_window_is_where_the_detail_is() -> None:
    image = torch.full((3, 160, 160), 0.5)
    image[:, 96:144, 32:80] = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    top, _, left, _ = busiest(image, 48)
    assert abs(top - 96) < GRID
    assert abs(left - 32) < GRID


def test_the_strip_is_input_restored_and_clean_and_its_psnr_that_of_the_strip(
    photographs: dict[str, Tensor], random_network: Callable[..., SameSize]
) -> None:
    pair = pair_of(photographs["chelsea"][:, :131, :97])
    seen = Viewpoint(pair).look(random_network(), "scratch", 7)
    before, restored, clean = panels(seen.png, seen.width)
    assert clean.shape == (3, seen.height, seen.width) == (3, 131, 97)
    assert torch.equal(before, pair.distorted)
    assert torch.equal(clean, pair.clean)
    assert seen.psnr == pytest.approx(psnr(from_uint8(restored), from_uint8(clean)), abs=1e-4)
    assert seen.input_psnr == pytest.approx(psnr(from_uint8(before), from_uint8(clean)), abs=1e-4)


def test_what_a_lost_network_makes_is_shown_black(
    photographs: dict[str, Tensor], random_network: Callable[..., SameSize]
) -> None:
    network = random_network()
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    seen = Viewpoint(pair_of(photographs["chelsea"][:, :131, :97])).look(network, "scratch", 7)
    assert seen.psnr == 0
    assert int(panels(seen.png, seen.width)[1].max()) == 0


@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_the_network_and_the_random_numbers_as_they_were(
    photographs: dict[str, Tensor], random_network: Callable[..., SameSize], training: bool
) -> None:
    network = random_network().train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    Viewpoint(pair_of(photographs["coffee"][:, :64, :80])).look(network, "scratch", 1)
    assert network.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.usefixtures("tiny_jobs")
def test_a_job_that_is_looked_at_after_every_step_ends_with_the_same_file(
    pair_files: PairFiles, tiny_prior: Prior, tmp_path: Path
) -> None:
    save_prior(tmp_path / "prior.safetensors", tiny_prior)

    def run(follower: Recorder) -> bytes:
        return run_job(pair_files(5), TrainingOptions(), follower, prior_path=tmp_path / "prior.safetensors").weights

    watched = Recorder(looks=True)
    assert run(watched) == run(Recorder())
    assert load(run(Recorder()))
    assert {seen.candidate for seen in watched.previews} >= {"scratch", "guided-transfer"}
    assert len({seen.png for seen in watched.previews}) > 2  # It shows the weights of the moment.

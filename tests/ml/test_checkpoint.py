"""Training state in files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ml import checkpoint
from ml.backbones import SameSize, build
from ml.checkpoint import Trainee
from ml.optimizer import adam
from tests.layers import convolution


def step(trainee: Trainee) -> None:
    generator = torch.Generator().manual_seed(trainee.step)
    image = torch.rand(1, 3, 8, 10, generator=generator)
    loss = (trainee.network(image) - image.flip(3)).abs().mean()
    trainee.optimizer.zero_grad()
    loss.backward()
    trainee.optimizer.step()
    trainee.step += 1


def trainee_of(network: nn.Module) -> Trainee:
    return Trainee(network, adam(network, 1e-2))


def test_a_resumed_trainee_goes_on_as_if_never_stopped(random_network: Callable[..., SameSize], tmp_path: Path) -> None:
    whole = trainee_of(random_network(2, seed=1))
    for _ in range(6):
        step(whole)
    first = trainee_of(random_network(2, seed=1))
    for _ in range(3):
        step(first)
    checkpoint.save(tmp_path / "c", first.tensors(), {"step": first.step})
    tensors, facts = checkpoint.load(tmp_path / "c")
    second = trainee_of(random_network(2, seed=2))
    second.load(tensors, facts["step"])
    for _ in range(3):
        step(second)
    expected, actual = whole.tensors(), second.tensors()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert second.step == 6


def test_without_the_optimizers_state_it_would_not(random_network: Callable[..., SameSize]) -> None:
    """What the test above rests on."""
    whole = trainee_of(random_network(2, seed=1))
    for _ in range(3):
        step(whole)
    weights = {name: value.clone() for name, value in whole.tensors().items() if name.startswith("network.")}
    step(whole)
    second = trainee_of(random_network(2, seed=2))
    second.load(weights, 3)
    step(second)
    assert not torch.equal(convolution(whole.network, 0).weight, convolution(second.network, 0).weight)


def test_moments_get_the_memory_layout_of_their_parameter(tmp_path: Path) -> None:
    """Otherwise the resumed run is slower, and its sums are rounded in another order."""
    first, second = trainee_of(build("vdsr", 2, 0)), trainee_of(build("vdsr", 2, 1))
    step(first)
    checkpoint.save(tmp_path / "c", first.tensors(), {})
    second.load(checkpoint.load(tmp_path / "c")[0], 1)
    for parameter, state in second.optimizer.state.items():
        assert state["exp_avg"].stride() == parameter.stride()
        assert state["step"].device == parameter.device


def test_a_fresh_trainee_can_be_saved_and_loaded(tmp_path: Path) -> None:
    trainee = trainee_of(nn.Conv2d(3, 3, 1))
    checkpoint.save(tmp_path / "c", trainee.tensors(), {"step": 0})
    other = trainee_of(nn.Conv2d(3, 3, 1))
    other.load(checkpoint.load(tmp_path / "c")[0], 0)
    assert not other.optimizer.state
    step(other)


def test_scalar_parameters_and_batch_statistics_survive(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.norm = nn.BatchNorm2d(3)

        def forward(self, image: Tensor) -> Tensor:
            normed: Tensor = self.norm(image)
            return normed * self.scale

    first, second = trainee_of(Scaled()), trainee_of(Scaled())
    step(first)
    checkpoint.save(tmp_path / "c", first.tensors(), {})
    second.load(checkpoint.load(tmp_path / "c")[0], 1)
    step(first)
    step(second)
    expected, actual = first.tensors(), second.tensors()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert int(actual["network.norm.num_batches_tracked"]) == 2


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"a": torch.ones(3)}, {"n": 1})
    with pytest.raises(TypeError):
        checkpoint.save(path, {"a": torch.zeros(3)}, {"n": object()})
    tensors, facts = checkpoint.load(path)
    assert (tensors["a"].tolist(), facts) == ([1, 1, 1], {"n": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_truncated_checkpoint_is_refused(percent: int, tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"a": torch.arange(100.0)}, {"n": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * percent // 100])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        checkpoint.load(path)


def test_a_missing_file_and_a_strangers_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        checkpoint.load(tmp_path / "none")
    save_file({"a": torch.ones(2)}, tmp_path / "theirs")
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        checkpoint.load(tmp_path / "theirs")
    (tmp_path / "pickle").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        checkpoint.load(tmp_path / "pickle")


def test_names_that_begin_alike_are_kept_apart() -> None:
    tensors = {"a.1.w": torch.zeros(1), "a.10.w": torch.ones(1)}
    assert list(checkpoint.under(tensors, "a.1.")) == ["w"]

"""Adam, and what it does with gradients that are far larger than those before."""

from collections.abc import Callable
from math import inf

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ml.backbones import build
from ml.checkpoint import Trainee
from ml.optimizer import LIMIT, SETTLED, adam, relative_norm


def network_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))


def loss_of(network: nn.Module, step: int) -> Tensor:
    image = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(step))
    loss: Tensor = (network(image) - image.flip(3)).abs().mean()
    return loss


def backward(network: nn.Module, step: int, times: float = 1.0) -> None:
    network.zero_grad()
    (loss_of(network, step) * times).backward()


def train(
    network: nn.Module, optimizer: torch.optim.Adam, steps: range, times: Callable[[int], float] = lambda step: 1.0
) -> None:
    for step in steps:
        backward(network, step, times(step))
        optimizer.step()


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def gradient(network: nn.Module) -> np.ndarray:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.cat([each.flatten() for each in gradients]).double().numpy()


def test_within_the_limit_it_is_torchs_adam_bit_for_bit() -> None:
    one, other = network_of(), network_of()
    plain, limited = torch.optim.Adam(one.parameters(), lr=1e-2, fused=True), adam(other, 1e-2)
    largest = 0.0
    for step in range(60):
        for network, optimizer in ((one, plain), (other, limited)):
            backward(network, step)
            largest = max(largest, float(relative_norm(optimizer)))
            optimizer.step()
    assert 0.2 < largest < LIMIT
    assert all(torch.equal(*both) for both in zip(weights(one), weights(other), strict=True))


def test_beyond_it_the_gradient_is_scaled_to_the_limit() -> None:
    """Against Adam's second moment of all gradients, by NumPy."""
    network = network_of()
    optimizer = adam(network, 1e-3, limit=3.0)
    second = np.zeros(1)
    for step in range(30):
        backward(network, step)
        second = 0.999 * second + 0.001 * gradient(network) ** 2
        optimizer.step()
    backward(network, 30, times=500)
    before = gradient(network)
    usual = np.sqrt(np.sum(second / (1 - 0.999**30)))
    assert float(relative_norm(optimizer)) == pytest.approx(np.linalg.norm(before) / usual, rel=1e-4)
    optimizer.step()
    after = gradient(network)
    assert np.linalg.norm(after) == pytest.approx(3 * usual, rel=1e-4)
    np.testing.assert_allclose(after / np.linalg.norm(after), before / np.linalg.norm(before), atol=1e-6)


@pytest.mark.parametrize(("step", "limited"), [(1, False), (SETTLED - 1, False), (SETTLED, True)])
def test_the_first_steps_are_free(step: int, limited: bool) -> None:
    network = network_of()
    optimizer = adam(network, 1e-3)
    train(network, optimizer, range(step))
    backward(network, step, times=500)
    before = gradient(network)
    optimizer.step()
    assert np.array_equal(before, gradient(network)) is not limited


def test_after_gradients_of_zero_nothing_is_too_large() -> None:
    network = network_of()
    optimizer = adam(network, 1e-3)
    train(network, optimizer, range(20), times=lambda step: 0.0)
    backward(network, 20)
    before = gradient(network)
    optimizer.step()
    assert np.abs(before).max() > 0
    assert np.array_equal(before, gradient(network))


def test_weights_that_no_loss_depends_on_do_not_matter() -> None:
    network = nn.ModuleDict({"used": network_of(), "unused": nn.Linear(2, 2)})
    optimizer = adam(network, 1e-3)
    train(network["used"], optimizer, range(20))
    assert 0 < float(relative_norm(optimizer)) < LIMIT
    assert float(relative_norm(adam(nn.Linear(2, 2), 1e-3))) == 0


def test_one_enormous_gradient_does_not_stop_the_learning() -> None:
    """Adam would remember it for a thousand steps, and hardly move meanwhile."""

    def error(network: nn.Module) -> float:
        with torch.no_grad():
            return float(torch.stack([loss_of(network, step) for step in range(1000, 1010)]).mean())

    def learned(limit: float) -> float:
        network = network_of()
        train(network, adam(network, 3e-3, limit), range(120), times=lambda step: 1e4 if step == 20 else 1.0)
        return error(network_of()) - error(network)

    assert learned(LIMIT) > 1.5 * learned(inf)


def test_a_resumed_training_limits_alike() -> None:
    def spiked(step: int) -> float:
        return 1e4 if step in (22, 31) else 1.0

    whole, first, second = (
        Trainee(network, adam(network, 1e-2)) for network in (network_of(), network_of(), network_of(1))
    )
    train(whole.network, whole.optimizer, range(40), spiked)
    train(first.network, first.optimizer, range(25), spiked)
    second.load({name: value.clone() for name, value in first.tensors().items()}, 25)
    train(second.network, second.optimizer, range(25, 40), spiked)
    assert all(torch.equal(value, second.tensors()[name]) for name, value in whole.tensors().items())


def test_an_accelerator_is_not_waited_for() -> None:
    """Tensors of torch's `meta` device have no values: reading one fails."""
    network = build("vdsr", 2, 0).to("meta")
    optimizer = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)
        optimizer.state[parameter] = {
            "step": torch.empty((), device="meta"),
            "exp_avg_sq": torch.empty_like(parameter),
        }
    assert relative_norm(optimizer).device.type == "meta"


@pytest.mark.parametrize("lost", [inf, -inf, float("nan")])
@pytest.mark.parametrize("step", [0, 3, 40])
def test_a_gradient_that_is_not_finite_changes_nothing(lost: float, step: int) -> None:
    network = network_of()
    optimizer = adam(network, 1e-2)
    train(network, optimizer, range(step))
    before = Trainee(network, optimizer).tensors()
    kept = {name: value.clone() for name, value in before.items()}
    backward(network, step)
    grad = next(network.parameters()).grad
    assert grad is not None
    grad[0, 0, 0, 0] = lost
    optimizer.step()
    after = Trainee(network, optimizer).tensors()
    assert all(torch.equal(after[name], value) for name, value in kept.items())
    train(network, optimizer, range(step, step + 2))
    assert all(bool(weight.isfinite().all()) for weight in weights(network))
    assert not torch.equal(weights(network)[0], kept["network.0.weight"])

"""γ-weighted learning of the auxiliary tasks (Algorithm 2, Eq. 11)."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from ml.auxiliary import AuxiliaryBatch
from ml.backbones import SameSize
from ml.distortions import PAPERS
from ml.optimizer import adam
from ml.transfer import TransferSchedule, mean_weight, transfer_loss, transfer_step

Seeded = Callable[[int], torch.Generator]

TASKS = list(PAPERS)
GAMMA = torch.tensor([0.7, 0.0, 0.3])


@pytest.fixture
def network() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


def batch_of(tasks: list[int], seed: int = 0) -> AuxiliaryBatch:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(tasks), 3, 7, 5)
    return AuxiliaryBatch(
        torch.rand(shape, generator=generator), torch.rand(shape, generator=generator), torch.tensor(tasks)
    )


def gradient(network: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def loss_of(network: nn.Module, batch: AuxiliaryBatch, gamma: Tensor) -> tuple[Tensor, Tensor]:
    return transfer_loss(network, batch, gamma, len(batch.task) * mean_weight(gamma, None))


def task_gradient(network: nn.Module, batch: AuxiliaryBatch, task: int) -> Tensor:
    """∇L_i of the plain L1 loss over the samples of one task."""
    own = batch.task == task
    return gradient(network, (network(batch.distorted[own]) - batch.clean[own]).abs().mean())


def test_with_equal_counts_the_gradient_is_the_gamma_weighted_mean_of_the_tasks_gradients(network: nn.Conv2d) -> None:
    """Σ γ_i g_i / Σ γ_i."""
    batch = batch_of([0, 1, 2, 0, 1, 2])
    weighted = [float(GAMMA[i]) * task_gradient(network, batch, i) for i in range(3)]
    expected = torch.stack(weighted).sum(dim=0) / float(GAMMA.sum())
    loss, total = loss_of(network, batch, GAMMA)
    assert torch.allclose(gradient(network, loss), expected, atol=1e-6)
    assert float(total) == pytest.approx(2.0)


def test_with_unequal_counts_each_task_weighs_gamma_times_its_samples(network: nn.Conv2d) -> None:
    """Σ n_i γ_i g_i, over what that sum of weights is on average."""
    batch, counts = batch_of([0, 2, 2, 1, 2]), [1, 1, 3]
    share = [n * float(g) for n, g in zip(counts, GAMMA, strict=True)]
    weighted = [share[i] * task_gradient(network, batch, i) for i in range(3)]
    expected = torch.stack(weighted).sum(dim=0) / (5 * float(GAMMA.mean()))
    assert torch.allclose(gradient(network, loss_of(network, batch, GAMMA)[0]), expected, atol=1e-6)


class Levels(nn.Module):
    """A level for each channel, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.zeros(3))

    def forward(self, image: Tensor) -> Tensor:
        return self.levels[:, None, None].expand_as(image)


@pytest.mark.parametrize("drawn", [None, [0.1, 0.1, 0.8]])
def test_on_average_over_batches_every_task_has_the_share_that_gamma_gives_it(drawn: list[float] | None) -> None:
    """Over all batches of four. The clean images of task i differ from 0 in channel i alone."""
    network, gamma, chances = Levels(), torch.tensor([0.96, 0.02, 0.02]), None if drawn is None else torch.tensor(drawn)
    shares = torch.zeros(3)
    for tasks in product(range(3), repeat=4):
        task = torch.tensor(tasks)
        clean = nn.functional.one_hot(task, 3).float()[:, :, None, None]  # (4, 3, 1, 1)
        batch = AuxiliaryBatch(clean, torch.zeros_like(clean), task)
        loss, _ = transfer_loss(network, batch, gamma, 4 * mean_weight(gamma, chances))
        chance = torch.full((3,), 1 / 3)[task].prod() if chances is None else chances[task].prod()
        shares -= chance * 3 * gradient(network, loss)
    weight = gamma if chances is None else gamma * chances
    assert shares.tolist() == pytest.approx((weight / weight.sum()).tolist(), abs=1e-5)


@pytest.mark.parametrize("count", [6, 7, 8])
def test_gamma_of_one_everywhere_is_plain_pre_training_bit_for_bit(network: nn.Conv2d, count: int) -> None:
    batch = batch_of([index % 3 for index in range(count)])
    loss, _ = loss_of(network, batch, torch.ones(3))
    plain = (network(batch.distorted) - batch.clean).abs().mean(dim=(1, 2, 3)).mean()
    assert loss.item() == plain.item()
    assert torch.equal(gradient(network, loss), gradient(network, plain))


def test_only_the_proportions_of_gamma_matter(network: nn.Conv2d) -> None:
    batch = batch_of([0, 1, 2, 0])
    one, other = loss_of(network, batch, GAMMA)[0], loss_of(network, batch, GAMMA * 0.01)[0]
    assert one.item() == pytest.approx(other.item(), rel=1e-6)


def test_a_task_of_gamma_zero_has_no_influence(network: nn.Conv2d) -> None:
    batch = batch_of([0, 1, 2, 1])
    spoiled = batch.distorted.clone()
    spoiled[batch.task == 1] = 100
    before = gradient(network, loss_of(network, batch, GAMMA)[0])
    other = AuxiliaryBatch(batch.clean, spoiled, batch.task)
    assert torch.equal(gradient(network, loss_of(network, other, GAMMA)[0]), before)


def test_a_larger_gamma_gives_its_task_a_larger_share(network: nn.Conv2d) -> None:
    batch = batch_of([0, 1])
    shares = []
    for gamma in (0.2, 0.5, 0.9):
        mixed = gradient(network, loss_of(network, batch, torch.tensor([gamma, 0.5]))[0])
        shares.append(float((mixed - task_gradient(network, batch, 1)).norm()))
    assert shares == sorted(shares)


SCHEDULE = TransferSchedule(steps=4, batch=3, crop=16, learning_rate=1e-3)


def weights_after(network: SameSize, images: list[Tensor], gamma: Tensor, seed: int) -> dict[str, Tensor]:
    transfer_step(network, adam(network, 1e-3), images, TASKS, gamma, SCHEDULE, seed, 2)
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_a_step_repeated_with_one_seed_gives_the_same_weights(
    random_network: Callable[..., SameSize], photographs: dict[str, Tensor]
) -> None:
    images, gamma = list(photographs.values()), torch.rand(7)
    torch.manual_seed(1)
    first = weights_after(random_network(2), images, gamma, seed=3)
    torch.manual_seed(2)
    again, other = (weights_after(random_network(2), images, gamma, seed) for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_batch_without_related_tasks_changes_nothing(
    random_network: Callable[..., SameSize], photographs: dict[str, Tensor]
) -> None:
    network = random_network(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = weights_after(network, list(photographs.values()), torch.zeros(7), seed=0)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_schedule_defaults_to_the_papers_numbers() -> None:
    schedule = TransferSchedule(steps=1)
    assert (schedule.batch, schedule.crop, schedule.learning_rate) == (32, 64, 1e-4)

"""Transfer: learning the auxiliary tasks in proportion to their relation to the target (Algorithm 2, Eq. 11)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ml.auxiliary import AuxiliaryBatch, auxiliary_batch
from ml.chance import chance_of
from ml.crew import ALONE, Crew
from ml.placement import like
from ml.precision import autocast


@dataclass(frozen=True)
class TransferSchedule:
    """How auxiliary training runs. Crop, loss, optimizer and rate as in the paper's §4.2; steps and batch by preset."""

    steps: int
    batch: int = 32
    crop: int = 64
    learning_rate: float = 1e-4


def mean_weight(gamma: Float[Tensor, "k"], chances: Float[Tensor, "k"] | None) -> float:
    """The weight that a sample has on average, of a task drawn by `chances`, or of any."""
    return float(gamma.mean() if chances is None else (chances * gamma).sum() / chances.sum())


def transfer_loss(
    network: nn.Module, batch: AuxiliaryBatch, gamma: Float[Tensor, "k"], expected: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The γ-weighted mean of the auxiliary L1 losses, Eq. (11), and the summed weight of its samples.

    `expected` is the weight of a whole batch on average. Divided by that, tasks have over many steps the shares
    γᵢ / Σγ that Eq. (11) gives them; divided by its own weight, a batch of unrelated tasks would count as much as any.

    The tasks are weighted against each other inside one step: Adam undoes the scale of a loss that steps alone, so
    Algorithm 2 to the letter, one step per task with γ in front, would hardly feel γ.
    γ ≡ 1 is plain pre-training, Eq. (2).
    """
    per_sample = (network(batch.distorted).float() - batch.clean).abs().mean(dim=(1, 2, 3))  # (b,)
    weight = gamma[batch.task]  # (b,)
    return (like(per_sample, weight) * per_sample).sum() / max(expected, 1e-12), weight.sum()


def transfer_gradient(
    network: nn.Module,
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    gamma: Float[Tensor, "k"],
    schedule: TransferSchedule,
    seed: int,
    step: int,
    chances: Float[Tensor, "k"] | None,
    crew: Crew,
) -> tuple[Float[Tensor, ""], bool]:
    """The loss of a batch of auxiliary samples, its gradient left in the network; False where γ is 0 for all of it.

    Every process of a crew draws and computes its part. What decides is on the CPU, γ too: an accelerator is not
    waited for.
    """
    device = next(network.parameters()).device
    chance = chance_of(seed, f"transfer/{step}", crew.part(schedule.batch), device)
    batch = auxiliary_batch(clean_images, tasks, schedule.crop, chance, chances)
    with autocast(device):
        loss, weight = transfer_loss(network, batch, gamma, schedule.batch * mean_weight(gamma, chances))
    if crew.total(weight) == 0:
        return loss.detach(), False
    network.zero_grad()
    loss.backward()
    return crew.gather(network, loss), True


def transfer_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    gamma: Float[Tensor, "k"],
    schedule: TransferSchedule,
    seed: int,
    step: int,
    chances: Float[Tensor, "k"] | None = None,
    crew: Crew = ALONE,
) -> Float[Tensor, ""]:
    """One update of the network on a batch of auxiliary samples, of tasks drawn by `chances`. Returns the loss."""
    loss, related = transfer_gradient(network, clean_images, tasks, gamma, schedule, seed, step, chances, crew)
    if related:
        optimizer.step()
    return loss

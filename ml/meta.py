"""Meta-learning: weights from which one step on a task already helps (MAML; Eq. 4, 5 and 10, Algorithm 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn
from torch.func import functional_call

from ml.auxiliary import AuxiliaryBatch, auxiliary_batch
from ml.chance import chance_of
from ml.precision import autocast
from ml.sampling import generator_for
from ml.transfer import TransferSchedule, mean_weight

Order = Literal["first", "second"]


@dataclass(frozen=True)
class MetaSchedule:
    """What MAML adds to a transfer schedule.

    `inner_rate` is the paper's α, of plain gradient descent; `order` says whether the outer gradient looks through the
    inner one. A step visits up to `tasks` tasks and splits the transfer's batch between them and between support and
    query: it sees no more samples than a step of pre-training, and as many where these divide evenly.
    """

    inner_rate: float = 1e-2
    order: Order = "second"
    tasks: int = 4


def task_loss(network: nn.Module, parameters: Mapping[str, Tensor], batch: AuxiliaryBatch) -> Float[Tensor, ""]:
    """The L1 loss L(f_θ) that the network would have with these parameters."""
    with autocast(batch.clean.device):
        restored = functional_call(network, dict(parameters), (batch.distorted,))
    loss: Tensor = (restored.to(batch.clean.dtype) - batch.clean).abs().mean()
    return loss


def adapted(network: nn.Module, support: AuxiliaryBatch, inner_rate: float, order: Order) -> dict[str, Tensor]:
    """θ′ = θ − α∇L(θ) on the support batch, Eq. (1), as functions of θ.

    Of second order, ∂θ′/∂θ = I − α∇²L; of first order the Hessian is left out.
    """
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(
        task_loss(network, parameters, support), list(parameters.values()), create_graph=order == "second"
    )
    return {
        name: parameter - inner_rate * gradient
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
    }


def meta_loss(
    network: nn.Module, support: AuxiliaryBatch, query: AuxiliaryBatch, meta: MetaSchedule
) -> Float[Tensor, ""]:
    """L(f_θ′) on the query batch after the inner step on the support batch: one term of Eq. (4)."""
    return task_loss(network, adapted(network, support, meta.inner_rate, meta.order), query)


def visited_tasks(
    gamma: Float[Tensor, "k"], chances: Float[Tensor, "k"] | None, most: int, generator: Generator
) -> list[int]:
    """The tasks of one step, by index: those of positive γ, or so many of them; with `chances`, drawn by these."""
    if chances is not None:
        return torch.multinomial(chances, most, replacement=True, generator=generator).tolist()
    related = gamma.nonzero()[:, 0]
    if len(related) > most:
        related = related[torch.randperm(len(related), generator=generator)[:most]]
    return related.tolist()


def meta_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    gamma: Float[Tensor, "k"],
    schedule: TransferSchedule,
    meta: MetaSchedule,
    seed: int,
    step: int,
    chances: Float[Tensor, "k"] | None = None,
) -> Float[Tensor, ""]:
    """One update of θ by ∇Σ γ_i L_i(f_θ′_i) / Σ γ_i, Eq. (10), over the tasks it visits. Returns that loss.

    Σ γ_i is what as many tasks weigh on average, so that over many steps each has the share that γ gives it.

    γ ≡ 1 is plain MAML, Eq. (5). As in pre-training the tasks are weighted against each other within the step, since
    Adam undoes the scale of their sum. Raises ValueError for a network that keeps running statistics: the inner steps
    of all tasks would write theirs into it, and none of these are the statistics of the network that is trained.
    """
    if any(True for _ in network.buffers()):
        raise ValueError("network: it keeps statistics of its batches, which meta-learning would mix between tasks")
    device = next(network.parameters()).device
    generator = generator_for(seed, "maml", step)
    visited = visited_tasks(gamma, chances, meta.tasks, generator)
    if not visited:
        return torch.zeros(())  # Nothing is related to the target.
    shots = max(1, schedule.batch // (2 * len(visited)))
    total = len(visited) * mean_weight(gamma if chances is not None else gamma[gamma > 0], chances)
    outer = torch.zeros((), device=device)
    optimizer.zero_grad()
    for place, task in enumerate(visited):
        chance = chance_of(seed, f"maml/{step}/{place}", range(2 * shots), device)
        support, query = auxiliary_batch(clean_images, [tasks[task]], schedule.crop, chance).halves()
        loss = gamma[task] * meta_loss(network, support, query, meta) / total
        loss.backward()  # Task by task, so that the graph of one is in memory at a time.
        outer += loss.detach()
    optimizer.step()
    return outer

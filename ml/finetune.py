"""Fine-tuning on the few target pairs (Eq. 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ml.crew import ALONE, Crew
from ml.images import from_uint8
from ml.losses import LossName, loss_between
from ml.pairs import TargetPair
from ml.precision import autocast
from ml.sampling import crop, dihedral, generator_for, pick


@dataclass(frozen=True)
class FinetuneSchedule:
    """How fine-tuning runs: the paper's decay, ×0.8 every 3,000 steps, or ours for short runs, a cosine to zero.

    `steps` is at least 1.
    """

    steps: int
    batch: int = 32
    crop: int = 64
    learning_rate: float = 1e-4
    decay: Literal["paper", "cosine"] = "paper"
    loss: LossName = "l1"

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        if self.decay == "paper":
            return self.learning_rate * math.pow(0.8, step // 3000)
        warmup = min(1.0, (step + 1) / 20)  # Adam's first steps are of full size whatever the gradient.
        return self.learning_rate * warmup * (1 + math.cos(math.pi * step / self.steps)) / 2


def target_batch(
    pairs: Sequence[TargetPair], batch: int, side: int, generator: Generator
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
    """Random crops of the pairs, clean and distorted, augmented by the dihedral group.

    All crops of a batch have one size: `side`, or the shortest side of any pair where that is smaller.
    """
    side = min([side, *(min(pair.clean.shape[1:]) for pair in pairs)])
    drawn, turns, flips = [], [], []
    for _ in range(batch):
        pair = pairs[pick(len(pairs), generator)]
        drawn.append(torch.stack(crop([pair.clean, pair.distorted], side, generator)))
        turns.append(pick(4, generator))
        flips.append(pick(2, generator))
    both = from_uint8(dihedral(torch.stack(drawn, dim=1), turns, flips))  # (2, b, 3, h, w)
    return both[0], both[1]


def finetune_gradient(
    network: nn.Module, pairs: Sequence[TargetPair], schedule: FinetuneSchedule, seed: int, step: int, crew: Crew
) -> Float[Tensor, ""]:
    """The loss of a batch of target crops, its gradient left in the network. A crew's processes compute parts of it."""
    device = next(network.parameters()).device
    clean, distorted = target_batch(pairs, schedule.batch, schedule.crop, generator_for(seed, "finetune", step))
    clean, distorted = clean[crew.rank :: crew.size], distorted[crew.rank :: crew.size]  # (b / crew, 3, h, w)
    with autocast(device):
        restored = network(distorted.to(device, non_blocking=True))
    loss = loss_between(restored.float(), clean.to(device, non_blocking=True), schedule.loss) * (
        len(clean) / schedule.batch
    )
    network.zero_grad()
    loss.backward()
    return crew.gather(network, loss)


def finetune_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    pairs: Sequence[TargetPair],
    schedule: FinetuneSchedule,
    seed: int,
    step: int,
    crew: Crew = ALONE,
) -> Float[Tensor, ""]:
    """One update of the network on a batch of target crops, Eq. (3). Returns the loss."""
    loss = finetune_gradient(network, pairs, schedule, seed, step, crew)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate_at(step)
    optimizer.step()
    return loss

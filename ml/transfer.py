"""Transfer: learning the auxiliary tasks in proportion to their relation to the target (Algorithm 2, Eq. 11)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor, nn

from ml.crew import ALONE, Crew
from ml.distortions import distort
from ml.images import from_uint8
from ml.precision import autocast
from ml.sampling import dihedral, draw, generator_for, pick, textured_crop

MARGIN = 16  # Pixels distorted around a training crop and cut away, so that no distortion meets the crop's border.


@dataclass(frozen=True)
class TransferSchedule:
    """How auxiliary training runs. Crop, loss, optimizer and rate as in the paper's §4.2; steps and batch by preset."""

    steps: int
    batch: int = 32
    crop: int = 64
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class AuxiliaryBatch:
    """Samples of the auxiliary tasks; `task` says which of the K tasks each belongs to."""

    clean: Float[Tensor, "b 3 h w"]
    distorted: Float[Tensor, "b 3 h w"]
    task: Int64[Tensor, "b"]

    def to(self, device: torch.device) -> "AuxiliaryBatch":
        return AuxiliaryBatch(self.clean.to(device), self.distorted.to(device), self.task.to(device))

    def halves(self) -> tuple["AuxiliaryBatch", "AuxiliaryBatch"]:
        """The first and the second half of an even number of samples."""
        one, other = zip(*(part.chunk(2) for part in (self.clean, self.distorted, self.task)), strict=True)
        return AuxiliaryBatch(*one), AuxiliaryBatch(*other)


def auxiliary_batch(
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    side: int,
    generators: Sequence[Generator],
    chances: Float[Tensor, "k"] | None = None,
) -> AuxiliaryBatch:
    """Draw crops of clean images and distort each by a task, augmented by the dihedral group.

    Tasks are drawn with the given chances, or uniformly. Each sample is drawn from a generator of its own, so that it
    is the same whoever draws the others.
    """
    clean, distorted, drawn = [], [], []
    for generator in generators:
        task = pick(len(tasks), generator) if chances is None else draw(chances, generator)
        source = clean_images[pick(len(clean_images), generator)]
        (image,) = textured_crop([source], side + 2 * MARGIN, generator, tries=2)
        image = from_uint8(image)
        pair = torch.stack([image, distort(tasks[task], image, generator)])  # (2, 3, h, w)
        pair = dihedral(pair[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN], generator)
        clean.append(pair[0])
        distorted.append(pair[1])
        drawn.append(task)
    return AuxiliaryBatch(torch.stack(clean), torch.stack(distorted), torch.tensor(drawn))


def transfer_loss(
    network: nn.Module, batch: AuxiliaryBatch, gamma: Float[Tensor, "k"], crew: Crew = ALONE
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The γ-weighted mean of the auxiliary L1 losses, Eq. (11), with the summed weight it was divided by.

    The weight is that of the whole crew's batch, the loss this process's part of the mean.

    The tasks are weighted against each other inside one step: Adam undoes the scale of a loss that steps alone, so
    Algorithm 2 to the letter, one step per task with γ in front, would hardly feel γ.
    γ ≡ 1 is plain pre-training, Eq. (2).
    """
    per_sample = (network(batch.distorted).float() - batch.clean).abs().mean(dim=(1, 2, 3))  # (b,)
    weight = gamma[batch.task]  # (b,)
    total = crew.total(weight.sum())
    return (weight * per_sample).sum() / total.clamp_min(1e-12), total


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

    Every process of a crew draws and computes its part.
    """
    device = gamma.device
    generators = [generator_for(seed, f"transfer/{step}", sample) for sample in crew.part(schedule.batch)]
    batch = auxiliary_batch(clean_images, tasks, schedule.crop, generators, chances).to(device)
    with autocast(device):
        loss, weight = transfer_loss(network, batch, gamma, crew)
    if weight == 0:
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
) -> float:
    """One update of the network on a batch of auxiliary samples, of tasks drawn by `chances`. Returns the loss."""
    loss, related = transfer_gradient(network, clean_images, tasks, gamma, schedule, seed, step, chances, crew)
    if related:
        optimizer.step()
    return loss.item()

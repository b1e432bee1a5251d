"""How the networks of a prior are trained: loops that go on where they were interrupted, to the same bits."""

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from ml import checkpoint
from ml.backbones import SameSize
from ml.checkpoint import Trainee
from ml.drn import DistortionRelationNetwork, DrnShape
from ml.optimizer import adam
from ml.placement import at_hand
from ml.precision import device
from ml.relation import drn_step
from ml.transfer import TransferSchedule, transfer_step
from ml.transferability import fresh_expert

SAVE_EVERY_S = 60.0
READ_EVERY = 20  # steps
EXPERT_STEPS = 640
EXPERT_BATCH = 8
EXPERT_RATE = 5e-4


def training_bars() -> Progress:
    """A bar for each network in training, with its loss."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )


def train_experts(
    names: Sequence[str],
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    seed: int,
    steps: int,
    work: Path,
    progress: Progress,
) -> dict[str, SameSize]:
    """A network for each distortion, trained on it alone at a constant rate, as a job transfers.

    Kept in `work` on the way, and gone on with.
    """
    schedule = TransferSchedule(steps, EXPERT_BATCH, learning_rate=EXPERT_RATE)
    experts = {}
    for name in names:
        expert = fresh_expert(seed)
        train_network(expert, f"expert-{name}", images, [name], seed, schedule, work, progress, decay=False)
        experts[name] = expert.cpu().eval()
    return experts


def train_drn(
    shape: DrnShape,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    seed: int,
    steps: int,
    work: Path | None = None,
    progress: Progress | None = None,
) -> tuple[DistortionRelationNetwork, float]:
    """A network after `steps` episodes of three support and three query samples of every task, and its running loss.

    Kept in `work` on the way, where that is given, and gone on with.
    """
    torch.manual_seed(seed)
    drn = DistortionRelationNetwork(shape).to(device())
    trainee = Trainee(drn, adam(drn, 1e-3))
    saved = work and work / f"drn-{_key(drn, images, shape, list(tasks), seed, steps)}.safetensors"
    running = RunningLoss(_resume(trainee, saved), keeps=0.98)
    images = at_hand(device(), images)
    progress = progress or Progress(disable=True)
    bar = progress.add_task("distortion-relation network", total=steps, completed=trainee.step, loss=running.value)
    last_save = time.monotonic()
    drn.train()
    while trainee.step < steps:
        for group in trainee.optimizer.param_groups:
            group["lr"] = 1e-3 * (1 + math.cos(math.pi * trainee.step / steps)) / 2
        running.add(drn_step(drn, trainee.optimizer, images, tasks, shots=3, seed=seed, step=trainee.step))
        trainee.step += 1
        progress.update(bar, completed=trainee.step, loss=running.value)
        if saved and (time.monotonic() - last_save > SAVE_EVERY_S or trainee.step == steps):
            checkpoint.save(saved, trainee.tensors(), {"step": trainee.step, "loss": running.read()})
            last_save = time.monotonic()
    return drn.cpu(), running.read()


def train_network(
    network: SameSize,
    name: str,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    seed: int,
    schedule: TransferSchedule,
    work: Path,
    progress: Progress,
    *,
    decay: bool = True,
) -> float:
    """Train on all tasks alike, going on from what the same training left in `work`. Returns the running loss.

    With `decay` the rate rises for 200 steps and falls as a cosine.
    """
    saved = work / f"{name}-{_key(network, images, list(tasks), seed, schedule, decay)}.safetensors"
    network.to(device())
    trainee = Trainee(network, adam(network, schedule.learning_rate))
    running = RunningLoss(_resume(trainee, saved), keeps=0.99)
    images = at_hand(device(), images)
    label = f"{name}, {tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'}"
    bar = progress.add_task(label, total=schedule.steps, completed=trainee.step, loss=running.value)
    last_save = time.monotonic()
    uniform = torch.ones(len(tasks))
    while trainee.step < schedule.steps:
        if decay:
            share = min(1.0, (trainee.step + 1) / 200) * (1 + math.cos(math.pi * trainee.step / schedule.steps)) / 2
            for group in trainee.optimizer.param_groups:
                group["lr"] = schedule.learning_rate * share
        running.add(transfer_step(network, trainee.optimizer, images, tasks, uniform, schedule, seed, trainee.step))
        trainee.step += 1
        progress.update(bar, completed=trainee.step, loss=running.value)
        if time.monotonic() - last_save > SAVE_EVERY_S or trainee.step == schedule.steps:
            checkpoint.save(saved, trainee.tensors(), {"step": trainee.step, "loss": running.read()})
            last_save = time.monotonic()
    return running.read()


class RunningLoss:
    """The exponential mean of the losses of all steps; `value` is that of those that have been read.

    Read several at a time, since an accelerator is waited for at each reading.
    """

    def __init__(self, value: float, keeps: float) -> None:
        self.value = value
        self.keeps = keeps
        self._unread: list[Float[Tensor, ""]] = []

    def add(self, loss: Float[Tensor, ""]) -> None:
        self._unread.append(loss)
        if len(self._unread) == READ_EVERY:
            self.read()

    def read(self) -> float:
        for loss in torch.stack(self._unread).tolist() if self._unread else []:
            self.value = loss if math.isnan(self.value) else self.keeps * self.value + (1 - self.keeps) * loss
        self._unread.clear()
        return self.value


def _key(network: nn.Module, images: Sequence[UInt8[Tensor, "3 _ _"]], *about: object) -> str:
    """A digest of all that a training depends on: what was begun otherwise must not be gone on with."""
    digest = hashlib.sha256(repr(about).encode())
    for value in (*network.state_dict().values(), *images):
        digest.update(f"{tuple(value.shape)}".encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _resume(trainee: Trainee, saved: Path | None) -> float:
    """Go on where a run before stopped. Returns its running loss, not a number at the start."""
    if saved is None or not saved.exists():
        return math.nan
    tensors, facts = checkpoint.load(saved)
    trainee.load(tensors, facts["step"])
    return float(facts["loss"])

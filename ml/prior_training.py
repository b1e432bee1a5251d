"""The one command that rebuilds the prior: `python -m ml.prior_training --clean DIR --output FILE`."""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from jaxtyping import Float, UInt8
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from ml import checkpoint
from ml.auxiliary import MARGIN
from ml.backbones import BACKBONES, SameSize, build
from ml.checkpoint import Trainee
from ml.dead_leaves import dead_leaves
from ml.distortions import DISTORTIONS, PAPERS
from ml.drn import DistortionRelationNetwork, DrnShape
from ml.edges import Edges
from ml.images import load_folder, to_uint8
from ml.optimizer import adam
from ml.placement import at_hand
from ml.precision import device
from ml.prior import Prior, halved, round_to_half, save_prior, theta_name
from ml.relation import PATCH, Prototypes, compute_prototypes, drn_step
from ml.sampling import generator_for
from ml.transfer import TransferSchedule, transfer_step
from ml.transferability import fresh_expert

SAVE_EVERY_S = 60.0
READ_EVERY = 20  # steps
PROTOTYPE_SAMPLES = 64
DEAD_LEAVES = 12
DEAD_LEAVES_SIDE = 512
EXPERT_STEPS = 640
EXPERT_BATCH = 8
EXPERT_RATE = 5e-4
GENERATED = f"{DEAD_LEAVES} dead-leaves images of {DEAD_LEAVES_SIDE}×{DEAD_LEAVES_SIDE}"


def train_prior(
    clean: Annotated[list[Path], typer.Option(help="Folder of clean photographs; give it once for each folder.")],
    output: Annotated[Path, typer.Option(help="The bundle to write.")],
    licence: Annotated[str, typer.Option(help="Terms of the photographs, for the card.")] = "unknown",
    seed: int = 0,
    drn_steps: int = 1500,
    theta_steps: int = 30_000,
    batch: int = 8,
    learning_rate: float = 4e-4,
    expert_steps: Annotated[int, typer.Option(help="Of each distortion's expert.", min=0)] = EXPERT_STEPS,
    unshuffle: int = 2,
    backbone: Annotated[list[str] | None, typer.Option(help="Give it once for each; by default vdsr.")] = None,
    learn: Annotated[
        Literal["paper", "all"], typer.Option(help="What is trained on: the paper's seven, or all distortions.")
    ] = "paper",
    memory_nodes: Annotated[int, typer.Option(help="Of the memory bank; 0 does without one.", min=0)] = 32,
    affinity: Annotated[
        Literal["scaled", "literal"], typer.Option(help="Eq. (6) with learned scale, or as printed.")
    ] = "scaled",
    edges: Annotated[Edges, typer.Option(help="How nodes are compared, in training and as γ.")] = "cosine",
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
) -> None:
    """Train the DRN, its memory bank, and backbones on auxiliary tasks; prototypes and experts of all distortions.

    Progress is saved beside the output every minute; the same command resumes from there and ends with the same bits.
    """
    backbones = backbone or ["vdsr"]
    if unknown := set(backbones) - set(BACKBONES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(BACKBONES)}")
    if threads:
        torch.set_num_threads(threads)
    work = output.with_name(f"{output.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    photographs = load_photographs(clean)
    images = photographs + generated_images(seed)
    tasks = list(PAPERS if learn == "paper" else DISTORTIONS)
    shape = DrnShape(memory_nodes=memory_nodes, affinity=affinity, edges=edges)
    with training_bars() as progress:
        drn, drn_loss = train_drn(shape, images, tasks, seed, drn_steps, work, progress)
        round_to_half(drn)
        prototypes = compute_prototypes(drn, images, list(DISTORTIONS), PROTOTYPE_SAMPLES, seed)
        schedule = TransferSchedule(theta_steps, batch, learning_rate=learning_rate)
        thetas, losses = {}, {}
        for name in backbones:
            theta = theta_name(name, unshuffle)
            network = build(name, unshuffle, seed)  # type: ignore[arg-type]  # the keys of BACKBONES
            losses[theta] = train_network(network, theta, images, tasks, seed, schedule, work, progress)
            thetas[theta] = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        experts = train_experts(list(DISTORTIONS), images, seed, expert_steps, work, progress)
    card: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "photographs": len(photographs),
        "generated": GENERATED,
        "licence": licence,
        "tasks": tasks,
        "seed": seed,
        "drn_steps": drn_steps,
        "drn_loss": drn_loss,
        "theta_steps": theta_steps,
        "theta_batch": batch,
        "theta_learning_rate": learning_rate,
        "theta_loss": losses,
        "expert_steps": expert_steps,
        "torch": torch.__version__,
    }
    version = version_of(card["date"], prototypes, thetas, experts)
    save_prior(output, Prior(version, drn, prototypes, thetas, card, experts))
    typer.echo(f"Wrote {output} ({output.stat().st_size / 2**20:.1f} MiB), version {version}.")


def load_photographs(folders: Sequence[Path]) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images of the folders that are large enough to be distorted with a margin.

    Raises ValueError for a folder without any, and for a file that cannot be read.
    """
    return [image for folder in folders for image in load_folder(folder, least_side=PATCH + 2 * MARGIN)]


def generated_images(seed: int) -> list[UInt8[Tensor, "3 _ _"]]:
    """Dead leaves, so that a prior has seen edges and textures of every size, whatever the photographs show."""
    return [
        to_uint8(dead_leaves(DEAD_LEAVES_SIDE, generator_for(seed, "leaves", index))) for index in range(DEAD_LEAVES)
    ]


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


def version_of(
    date: str,
    prototypes: Prototypes,
    thetas: dict[str, dict[str, Tensor]],
    experts: Mapping[str, SameSize],
) -> str:
    """The date with a digest of what jobs compare with and start from."""
    digest = hashlib.sha256(prototypes.vectors.numpy().tobytes())
    for name in sorted(thetas):
        for value in thetas[name].values():
            digest.update(value.numpy().tobytes())
    for name in sorted(experts):
        for value in experts[name].state_dict().values():
            digest.update(halved(value).numpy().tobytes())  # As they are kept.
    return f"{date}-{digest.hexdigest()[:8]}"


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


if __name__ == "__main__":
    typer.run(train_prior)

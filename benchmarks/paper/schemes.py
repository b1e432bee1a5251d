"""The schemes of Table 1 as trainings of equal steps and samples."""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import torch

from benchmarks.paper.networks import fresh
from benchmarks.paper.scales import Extent
from benchmarks.trials import Bench
from ml.backbones import BackboneName, SameSize
from ml.guidance import Preference, TaskMix, guided, uniform
from ml.meta import MetaSchedule
from ml.options import TrainingOptions
from ml.precision import device
from ml.relation import Relation

Scheme = Literal["baseline", "pretrain", "maml", "drtl-pretrain", "drtl-maml"]
SCHEMES: Final[tuple[Scheme, ...]] = get_args(Scheme)
GUIDED: Final = frozenset({"drtl-pretrain", "drtl-maml"})
META: Final = frozenset({"maml", "drtl-maml"})


@dataclass(frozen=True)
class Training:
    """What sets one training apart from others on the same target."""

    backbone: BackboneName
    seed: int
    mix: TaskMix | None = None  # None: no transfer, the paper's baseline.
    meta: bool = False


def training_of(scheme: Scheme, backbone: BackboneName, seed: int, relation: Relation, prefer: Preference) -> Training:
    """The relation acts as in a job that chooses nothing else; likeness as in the paper, as the tasks' weight."""
    if scheme == "baseline":
        return Training(backbone, seed)
    options = TrainingOptions(prefer=prefer, guidance="weight") if prefer == "likeness" else TrainingOptions()
    mix = guided(relation, options.acting) if scheme in GUIDED else uniform(relation)
    return Training(backbone, seed, mix, meta=scheme in META)


def single_task(task: str, backbone: BackboneName, seed: int, relation: Relation) -> Training:
    """Pre-training on one auxiliary task alone."""
    only = torch.tensor([float(name == task) for name in relation.prototypes.names])  # (k,)
    return Training(backbone, seed, TaskMix(torch.ones_like(only), only))


def train(bench: Bench, training: Training, extent: Extent) -> tuple[SameSize, dict[str, Any]]:
    """The trained network, and how many samples it has seen, which is the same for every scheme that transfers."""
    scale, rates = bench.scale, extent.schedules.of(training.backbone)
    unshuffle = extent.unshuffle_of(training.backbone)
    network = fresh(training.backbone, unshuffle, training.seed, cut_down=extent.cut_down).to(device())
    facts: dict[str, Any] = {"transfer_samples": 0, "finetune_samples": scale.finetune_steps * scale.batch}
    if training.mix is None:
        bench.tune(network, rates.scratch_rate, training.seed, extent.decay)
        return network, facts
    meta = equal_samples(rates.meta, training.mix, scale.batch) if training.meta else None
    bench.transfer(network, training.mix, training.seed, meta, rate=rates.transfer.learning_rate)
    bench.tune(network, rates.finetune.learning_rate, training.seed, extent.decay)
    return network, facts | {"transfer_samples": scale.transfer_steps * scale.batch}


def equal_samples(meta: MetaSchedule, mix: TaskMix, batch: int) -> MetaSchedule:
    """As many tasks a step as divide the batch without a rest, support and query alike.

    A step of meta-learning rounds the shots of each task down, and would else see fewer samples than pre-training.
    """
    related = meta.tasks if mix.chances is not None else int((mix.gamma > 0).sum())
    most = max(1, min(meta.tasks, related, batch // 2))
    return replace(meta, tasks=max(tasks for tasks in range(1, most + 1) if batch // 2 % tasks == 0))

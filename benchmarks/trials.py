"""Trainings compared under equal steps: one record each, kept as soon as it is made and never made twice."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import torch
import typer
from torch import Tensor

from benchmarks.devices import Device, middle
from benchmarks.main_job import commit, machine
from ml.auxiliary import MARGIN
from ml.backbones import SameSize
from ml.evaluate import mean, quality_of, quality_of_input
from ml.finetune import FinetuneSchedule, finetune_step
from ml.guidance import TaskMix
from ml.job import clean_images
from ml.meta import MetaSchedule, meta_step
from ml.optimizer import adam
from ml.pairs import Split, TargetPair, pairs_at_hand
from ml.placement import at_hand
from ml.precision import device, trained_in
from ml.prior import Prior
from ml.relation import Relation, relate
from ml.selection import selected
from ml.transfer import TransferSchedule, transfer_step
from ml.transferability import assessed


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured: so many `images`, None is all; of each the middle of a `side`, None is all."""

    transfer_steps: int
    finetune_steps: int
    batch: int
    seeds: int
    images: int | None
    side: int | None


SCALES: Final = {
    "smoke": Scale(transfer_steps=2, finetune_steps=2, batch=2, seeds=1, images=1, side=96),
    "quick": Scale(transfer_steps=240, finetune_steps=240, batch=8, seeds=1, images=6, side=256),
    "standard": Scale(transfer_steps=2_000, finetune_steps=2_000, batch=8, seeds=3, images=20, side=None),
}


LEAST_SIDE: Final = TransferSchedule(1).crop + 2 * MARGIN  # Of clean images: a crop with its margin must fit in.


def shown(pairs: Sequence[TargetPair], side: int | None) -> list[TargetPair]:
    """The middle of each unseen pair, or the whole of it."""
    if side is None:
        return list(pairs)
    return [TargetPair(pair.name, middle(pair.clean, side), middle(pair.distorted, side)) for pair in pairs]


def as_json(trial: dict[str, Any]) -> None:
    """Show a record whole."""
    typer.echo(json.dumps(trial))


class Trials:
    """The JSON file of a benchmark. Records of a file that was begun with other settings are not mixed in.

    A file may be gone on with by another commit or on another machine, so every record says by what it was `made`.
    `noted` is kept with them, but may differ between runs; `say` hears of every new record.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        noted: dict[str, Any] | None = None,
        say: Callable[[dict[str, Any]], None] = as_json,
    ) -> None:
        self.path, self.say = path, say
        about: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
        }
        self.made = {"commit": about["commit"], "cpu": about["machine"]["cpu"], "arithmetic": trained_in(device())}
        self.report: dict[str, Any] = settings | about | (noted or {}) | {"inputs": {}, "trials": []}
        if path.exists():
            begun = json.loads(path.read_text())
            if any(begun.get(name) != value for name, value in settings.items()):
                raise SystemExit(f"{path} was begun with other settings; choose another --output")
            if begun["commit"] != about["commit"]:
                typer.echo(f"{path} was begun at commit {begun['commit']}; what it holds is kept.")
            self.report = begun

    def holds(self, about: dict[str, str | int]) -> bool:
        """Whether there is a record of this training."""
        return any(all(trial.get(name) == value for name, value in about.items()) for trial in self.report["trials"])

    def measure(self, about: dict[str, str | int], measured: Callable[[], dict[str, Any]]) -> None:
        """Run one training and keep its record, unless there is one."""
        if self.holds(about):
            return
        started = time.perf_counter()
        trial = about | measured() | {"seconds": round(time.perf_counter() - started, 1), "made": self.made}
        self.report["trials"].append(trial)
        self.save()
        self.say(trial)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.report, indent=2) + "\n")
        partial.replace(self.path)


@dataclass(frozen=True)
class Bench:
    """What all trainings on one target share. `after_step` is called after every step of any of them."""

    target: Device
    scale: Scale
    clean: Sequence[Tensor]
    tasks: Sequence[str]
    unseen: Sequence[TargetPair]
    after_step: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, target: Device, scale: Scale, clean_dir: Path | None, tasks: Sequence[str], seed: int) -> "Bench":
        """Auxiliary tasks are made of a folder's images, the target's clean ones and dead leaves, as in a job."""
        images = clean_images(Split("pairs", target.train, []), clean_dir, LEAST_SIDE, seed)
        return cls(target, scale, images, tasks, shown(target.test, scale.side))

    def transfer(
        self,
        network: SameSize,
        mix: TaskMix,
        seed: int,
        meta: MetaSchedule | None = None,
        steps: int | None = None,
        rate: float = 5e-4,
    ) -> None:
        """Algorithm 2, or with `meta` Algorithm 3, without fine-tuning."""
        schedule = TransferSchedule(steps or self.scale.transfer_steps, self.scale.batch, learning_rate=rate)
        optimizer, images = adam(network, schedule.learning_rate), at_hand(device(), self.clean)
        for step in range(schedule.steps):
            learning = (network, optimizer, images, self.tasks, mix.gamma, schedule)
            if meta is None:
                transfer_step(*learning, seed, step, mix.chances)
            else:
                meta_step(*learning, meta, seed, step, mix.chances)
            self.after_step()

    def tune(
        self,
        network: SameSize,
        rate: float,
        seed: int,
        decay: Literal["paper", "cosine"] = "cosine",
        after: Callable[[int], None] = lambda steps: None,
        steps: int | None = None,
    ) -> None:
        """Fine-tuning, Eq. (3). `after` is told how many steps are done."""
        count = steps or self.scale.finetune_steps
        schedule = FinetuneSchedule(count, self.scale.batch, learning_rate=rate, decay=decay)
        optimizer, pairs = adam(network, rate), pairs_at_hand(device(), self.target.train)
        for step in range(schedule.steps):
            finetune_step(network, optimizer, pairs, schedule, seed, step)
            self.after_step()
            after(step + 1)

    def finetune(self, network: SameSize, rate: float, seed: int, points: int = 3) -> dict[str, Any]:
        """Fine-tune, and measure on the unseen images at equally spaced steps. `psnr` is the last, `curve` all."""
        steps = self.scale.finetune_steps
        curve = {}

        def measure(done: int) -> None:
            if done * points % steps < points:
                curve[str(done)] = self.psnr(network)

        self.tune(network, rate, seed, after=measure)
        return {"psnr": curve[str(steps)], "curve": curve}

    def psnr(self, network: SameSize) -> float:
        return mean(quality_of(network, self.unseen)).psnr

    def input_psnr(self) -> float:
        return mean(quality_of_input(self.unseen)).psnr


def related_tasks(prior: Prior, pairs: Sequence[TargetPair], seed: int) -> Relation:
    """The paper's distortions as a job sees them: their relation to the pairs, and what their experts gain."""
    relation = selected(relate(prior.drn.to(device()), prior.prototypes, pairs, seed), "paper")
    return assessed(relation, prior.experts, pairs, seed)


def settings(benchmark: str, command: str, scale: str, shots: int, extent: Scale | None = None) -> dict[str, Any]:
    """What two runs must have in common for their records to be compared. `extent` where it is not the scale's."""
    sizes = asdict(extent or SCALES[scale])
    return {"benchmark": benchmark, "command": command, "scale": scale, **sizes, "shots": shots}


def one_thread() -> None:
    """The same arithmetic on any number of cores."""
    torch.set_num_threads(1)

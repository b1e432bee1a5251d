"""How much each scale trains and measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from benchmarks.paper.networks import DEEP
from benchmarks.trials import SCALES as TRIALS
from benchmarks.trials import Scale
from ml.backbones import BackboneName
from ml.dip import DipSchedule
from ml.options import PRESETS, Schedules

ScaleName = Literal["smoke", "quick", "standard", "paper"]


@dataclass(frozen=True)
class Extent:
    """The sizes of all experiments.

    Within a row of a table every scheme has the same batch and fine-tuning, and every one that transfers the same
    transfer. `plain` and `deep` are the trainings of the shallow and of the deep backbones, which `cut_down` makes
    smaller than published. `drn_steps` episodes train each of the relation networks that are compared, `drn_width`
    wide; `drn_samples` make a prototype. DIP restores the first `dip_images` of the unseen images.
    """

    plain: Scale
    deep: Scale
    cut_down: bool
    unshuffle: int
    deep_unshuffle: int
    schedules: Schedules
    decay: Literal["paper", "cosine"]
    curve_shots: Sequence[int]
    drn_steps: int
    drn_width: float
    drn_samples: int
    dip: DipSchedule
    dip_images: int

    def training(self, backbone: BackboneName) -> Scale:
        return self.deep if backbone in DEEP else self.plain

    def of_steps(self, transfer: int | None, finetune: int | None) -> "Extent":
        """The same with trainings of so many steps; None leaves the scale's own."""
        steps = {"transfer_steps": transfer, "finetune_steps": finetune}
        given = {name: count for name, count in steps.items() if count is not None}
        return replace(self, plain=replace(self.plain, **given), deep=replace(self.deep, **given))

    def at_rates_of(self, other: "Extent") -> "Extent":
        """The same with the learning rates of another, and as these decay there."""
        own, theirs = self.schedules, other.schedules
        rates = replace(
            own,
            transfer=replace(own.transfer, learning_rate=theirs.transfer.learning_rate),
            finetune=replace(own.finetune, learning_rate=theirs.finetune.learning_rate, decay=theirs.finetune.decay),
            prior_rate=theirs.prior_rate,
            scratch_rate=theirs.scratch_rate,
            fractions=theirs.fractions,
        )
        return replace(self, schedules=rates, decay=other.decay)

    def at_transfer_rate(self, rate: float) -> "Extent":
        """The same with another learning rate of transfer alone."""
        transfer = replace(self.schedules.transfer, learning_rate=rate)
        return replace(self, schedules=replace(self.schedules, transfer=transfer))

    def on_all_that_is_unseen(self) -> "Extent":
        """The same, measured on every unseen image as a whole."""
        plain, deep = (replace(scale, images=None, side=None) for scale in (self.plain, self.deep))
        return replace(self, plain=plain, deep=deep)

    def unshuffle_of(self, backbone: BackboneName) -> int:
        return self.deep_unshuffle if backbone in DEEP else self.unshuffle


SCALES: Final[dict[ScaleName, Extent]] = {
    "smoke": Extent(
        plain=replace(TRIALS["smoke"], transfer_steps=1, finetune_steps=1, side=48),
        deep=replace(TRIALS["smoke"], transfer_steps=1, finetune_steps=1, side=48),
        cut_down=True,
        unshuffle=4,
        deep_unshuffle=4,
        schedules=PRESETS["quick"],
        decay="cosine",
        curve_shots=(1, 2),
        drn_steps=1,
        drn_width=1 / 16,
        drn_samples=2,
        dip=DipSchedule(steps=2, width=8, scales=2),
        dip_images=1,
    ),
    "quick": Extent(
        plain=replace(TRIALS["quick"], transfer_steps=160, finetune_steps=160),
        deep=replace(TRIALS["quick"], transfer_steps=80, finetune_steps=80),
        cut_down=True,
        unshuffle=4,
        deep_unshuffle=4,
        schedules=PRESETS["quick"],
        decay="cosine",
        curve_shots=(5, 10, 20, 30),
        drn_steps=200,
        drn_width=0.5,
        drn_samples=32,
        dip=DipSchedule(steps=600),
        dip_images=2,
    ),
    "standard": Extent(
        plain=TRIALS["standard"],
        deep=TRIALS["standard"],
        cut_down=False,
        unshuffle=2,
        deep_unshuffle=2,
        schedules=PRESETS["quick"],  # Whose rates are those of short trainings, as in `benchmarks/guidance.py`.
        decay="cosine",
        curve_shots=(5, 10, 15, 20, 25, 30),
        drn_steps=1_500,
        drn_width=0.5,
        drn_samples=64,
        dip=DipSchedule(steps=1_200),
        dip_images=10,
    ),
    "paper": Extent(
        plain=Scale(transfer_steps=100_000, finetune_steps=30_000, batch=32, seeds=3, images=30, side=None),
        deep=Scale(transfer_steps=100_000, finetune_steps=30_000, batch=32, seeds=3, images=30, side=None),
        cut_down=False,
        unshuffle=1,
        deep_unshuffle=1,
        schedules=PRESETS["paper"],
        decay="paper",
        curve_shots=(5, 10, 15, 20, 25, 30),
        drn_steps=10_000,
        drn_width=1.0,
        drn_samples=64,
        dip=DipSchedule(steps=3_000, width=128),
        dip_images=30,
    ),
}

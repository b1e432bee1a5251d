"""What a user may choose about a job, and the training schedules behind the presets."""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from ml.backbones import BackboneName
from ml.finetune import FinetuneSchedule
from ml.guidance import Acting, Guidance, Preference
from ml.losses import LossName
from ml.meta import MetaSchedule, Order
from ml.selection import TOP, Select
from ml.transfer import TransferSchedule

Preset = Literal["quick", "standard", "paper"]
Scheme = Literal["auto", "baseline", "pretrain", "maml", "drtl-pretrain", "drtl-maml"]
GUIDED: Final[frozenset[Scheme]] = frozenset({"auto", "drtl-pretrain", "drtl-maml"})  # Where the relation acts.


@dataclass(frozen=True)
class TrainingOptions:
    """What a user may choose; `None` leaves it to the preset.

    `select` and `top_k` say which known distortions take part, `prefer`, `guidance` and `temperature` how the relation
    acts, `maml_order` and `inner_rate` how the meta-learned schemes look ahead, `linear_probe` whether fine-tuning
    straight from the prior begins with a last layer fitted in closed form. Raises ValueError for values that no
    training can use.
    """

    preset: Preset = "quick"
    scheme: Scheme = "auto"
    backbone: BackboneName = "vdsr"
    unshuffle: int | None = None
    init: Literal["prior", "scratch"] = "prior"
    seed: int = 0
    transfer_steps: int | None = None
    finetune_steps: int | None = None
    loss: LossName = "l1"
    select: Select = "paper"
    guidance: Acting = "sample"
    temperature: float | None = None
    top_k: int | None = None
    prefer: Preference = "transferability"
    maml_order: Order | None = None
    inner_rate: float | None = None
    linear_probe: bool = True

    def __post_init__(self) -> None:
        if self.inner_rate is not None and not 0 <= self.inner_rate < math.inf:
            raise ValueError(f"inner_rate: {self.inner_rate} is no learning rate")
        _ = self.acting

    @property
    def acting(self) -> Guidance:
        """How γ acts."""
        most = TOP if self.select == "top-k" and self.top_k is None else self.top_k
        return Guidance(self.guidance, self.temperature, most, self.prefer)

    def meta(self, preset: MetaSchedule) -> MetaSchedule:
        """The meta-learning of a preset with what was chosen instead."""
        return replace(
            preset,
            order=preset.order if self.maml_order is None else self.maml_order,
            inner_rate=preset.inner_rate if self.inner_rate is None else self.inner_rate,
        )


@dataclass(frozen=True)
class Schedules:
    """The training schedules of a preset.

    `finetune` has the learning rate after transfer. The prior's weights are also fine-tuned at a gentler rate, since a
    target that is nearly clean wants small steps, and fresh weights at one of their own: the race finds what fits.
    """

    transfer: TransferSchedule
    finetune: FinetuneSchedule
    prior_rate: float
    scratch_rate: float
    meta: MetaSchedule


# Ours, but for `paper`: its batch, crop, rates and decay are those of §4.2. The paper names no numbers of steps.
PRESETS: Final[dict[Preset, Schedules]] = {
    "quick": Schedules(
        TransferSchedule(steps=240, batch=8, learning_rate=5e-4),
        FinetuneSchedule(steps=240, batch=8, learning_rate=1e-3, decay="cosine"),
        prior_rate=5e-4,
        scratch_rate=1e-3,
        meta=MetaSchedule(),
    ),
    "standard": Schedules(
        TransferSchedule(steps=2_000, batch=16, learning_rate=1e-4),
        FinetuneSchedule(steps=6_000, batch=16, learning_rate=4e-4, decay="cosine"),
        prior_rate=2e-4,
        scratch_rate=5e-4,
        meta=MetaSchedule(),
    ),
    "paper": Schedules(
        TransferSchedule(steps=100_000),
        FinetuneSchedule(steps=30_000),
        prior_rate=1e-4,
        scratch_rate=1e-4,
        meta=MetaSchedule(tasks=7),
    ),
}

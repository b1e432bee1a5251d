"""What a user may choose about a job, and the training schedules behind the presets."""

from dataclasses import dataclass
from typing import Final, Literal

from ml.backbones import BackboneName
from ml.finetune import FinetuneSchedule
from ml.losses import LossName
from ml.selection import Select
from ml.transfer import TransferSchedule

Preset = Literal["quick", "standard", "paper"]
Scheme = Literal["auto", "baseline", "pretrain", "drtl-pretrain"]


@dataclass(frozen=True)
class TrainingOptions:
    """What a user may choose; `None` leaves it to the preset."""

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
    select_k: int = 7


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


# Ours, but for `paper`: its batch, crop, rates and decay are those of §4.2. The paper names no numbers of steps.
PRESETS: Final[dict[Preset, Schedules]] = {
    "quick": Schedules(
        TransferSchedule(steps=240, batch=8, learning_rate=5e-4),
        FinetuneSchedule(steps=240, batch=8, learning_rate=1e-3, decay="cosine"),
        prior_rate=5e-4,
        scratch_rate=1e-3,
    ),
    "standard": Schedules(
        TransferSchedule(steps=2_000, batch=16, learning_rate=1e-4),
        FinetuneSchedule(steps=6_000, batch=16, learning_rate=4e-4, decay="cosine"),
        prior_rate=2e-4,
        scratch_rate=5e-4,
    ),
    "paper": Schedules(
        TransferSchedule(steps=100_000),
        FinetuneSchedule(steps=30_000),
        prior_rate=1e-4,
        scratch_rate=1e-4,
    ),
}

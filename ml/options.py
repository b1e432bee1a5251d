"""What a user may choose about a job, and the training schedules behind the presets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar

from ml.backbones import BackboneName
from ml.finetune import FinetuneSchedule
from ml.guidance import Acting, Guidance, Preference
from ml.losses import LossName
from ml.meta import MetaSchedule, Order
from ml.selection import TOP, Select
from ml.transfer import TransferSchedule

Preset = Literal["draft", "quick", "standard", "paper"]
Scheme = Literal["auto", "baseline", "pretrain", "maml", "drtl-pretrain", "drtl-maml"]
Choice = TypeVar("Choice")
GUIDED: Final[frozenset[Scheme]] = frozenset({"auto", "drtl-pretrain", "drtl-maml"})  # Where the relation acts.


@dataclass(frozen=True)
class TrainingOptions:
    """What a user may choose; `None` leaves it to the preset.

    `select` and `top_k` say which known distortions take part, `prefer`, `guidance` and `temperature` how the relation
    acts, `maml_order` and `inner_rate` how the meta-learned schemes look ahead, `linear_probe` whether a last layer
    is ever fitted in closed form: before fine-tuning straight from the prior, and after few steps. Raises ValueError
    for values that no training can use.
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
        if self.transfer_steps is not None and self.transfer_steps < 0:
            raise ValueError(f"transfer_steps: {self.transfer_steps} is less than none")
        if self.finetune_steps is not None and self.finetune_steps < 1:
            raise ValueError(f"finetune_steps: {self.finetune_steps} is less than one")
        _ = self.acting

    @property
    def acting(self) -> Guidance:
        """How γ acts."""
        most = TOP if self.select == "top-k" and self.top_k is None else self.top_k
        return Guidance(self.guidance, self.temperature, most, self.prefer)

    @property
    def schedules(self) -> "Schedules":
        """The preset's for the backbone, with what was chosen instead."""
        preset = PRESETS[self.preset].of(self.backbone)
        transfer, finetune, meta = preset.transfer, preset.finetune, preset.meta
        return replace(
            preset,
            transfer=replace(transfer, steps=_chosen(self.transfer_steps, transfer.steps)),
            finetune=replace(finetune, steps=_chosen(self.finetune_steps, finetune.steps), loss=self.loss),
            meta=replace(
                meta,
                order=_chosen(self.maml_order, meta.order),
                inner_rate=_chosen(self.inner_rate, meta.inner_rate),
            ),
        )

    @property
    def transfers(self) -> bool:
        """Whether any candidate learns auxiliary tasks."""
        return self.scheme != "baseline" and self.schedules.transfer.steps > 0

    @property
    def choice(self) -> Guidance | None:
        """By what tasks are chosen that are then learnt alike; None where all are that may be."""
        return self.acting if self.select == "top-k" else None

    @property
    def chooses(self) -> bool:
        """Whether the relation decides which tasks are learnt, or how much of each."""
        return self.guides or (self.transfers and self.choice is not None)

    @property
    def guides(self) -> bool:
        """Whether the relation acts on what any candidate learns."""
        return self.scheme in GUIDED and self.transfers


def _chosen(choice: Choice | None, preset: Choice) -> Choice:
    return preset if choice is None else choice


@dataclass(frozen=True)
class Schedules:
    """The training schedules of a preset.

    `finetune` has the learning rate after transfer. The prior's weights are also fine-tuned at a gentler rate, since a
    target that is nearly clean wants small steps, and fresh weights at one of their own: the race finds what fits.
    Rates are VDSR's; `fractions` says which part of them other backbones want once they know something. With `refit`
    the last layer is fitted in closed form after the last step, too, which is worth something after few of them.
    """

    transfer: TransferSchedule
    finetune: FinetuneSchedule
    prior_rate: float
    scratch_rate: float
    meta: MetaSchedule
    fractions: Mapping[BackboneName, float] = field(default_factory=dict)
    refit: bool = False

    def of(self, backbone: BackboneName) -> "Schedules":
        """The same at the rates that a backbone wants."""
        fraction = self.fractions.get(backbone, 1.0)
        return replace(
            self,
            transfer=replace(self.transfer, learning_rate=fraction * self.transfer.learning_rate),
            finetune=replace(self.finetune, learning_rate=fraction * self.finetune.learning_rate),
            prior_rate=fraction * self.prior_rate,
            fractions={},
        )


# Measured at so few steps by `benchmarks/rates.py`, on devices that no table of results is made with.
SHORT: Final[Mapping[BackboneName, float]] = {"dncnn": 1 / 4}

QUICK: Final = Schedules(
    TransferSchedule(steps=240, batch=8, learning_rate=5e-4),
    FinetuneSchedule(steps=240, batch=8, learning_rate=1e-3, decay="cosine"),
    prior_rate=5e-4,
    scratch_rate=1e-3,
    meta=MetaSchedule(),
    fractions=SHORT,
)

# Ours, but for `paper`: its batch, crop, rates and decay are those of §4.2. The paper names no numbers of steps.
# `draft` makes no transfer: where there is a prior, most of the gain comes with the last layer's fit and a tenth of the
# steps of `quick`, at twice its rate (`benchmarks/prior_start.py`).
PRESETS: Final[dict[Preset, Schedules]] = {
    "draft": replace(
        QUICK,
        transfer=replace(QUICK.transfer, steps=0),
        finetune=replace(QUICK.finetune, steps=24),
        prior_rate=1e-3,
        refit=True,
    ),
    "quick": QUICK,
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

"""Whose training is next: every owner gets the same share of the workers, and nobody waits for ever.

Start-time fair queueing (Goyal, Vin and Cheng, 1996). Every owner has a *turn*, a clock that moves on by the charge of
each job that is begun for it: the seconds of work that are expected of the job, less for an urgent one. Of the owners
that wait, those who hold the fewest workers come first, and of these the one whose turn is least. An owner that had
nothing waiting comes in level with whoever is next, so that nobody saves up turns while away; where nobody waits, level
with whoever has had most, so that nobody is punished for having used workers that nobody else wanted.

Among an owner's own jobs the `rank` decides: first come, first served, each step of priority being worth a day of
waiting. So the urgent goes first, and what is not urgent grows old enough in the end.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Priority = Literal["low", "normal", "high"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)  # The least first.
# An owner whose jobs all have this priority gets so many times the share of one whose jobs are all normal.
WEIGHT: Final[Mapping[Priority, float]] = {"low": 0.25, "normal": 1.0, "high": 4.0}
AGEING_S: Final = 86_400.0  # A step of priority is worth so much waiting.

# What is expected of a job, for shares and for the metric of waiting work; being wrong by a factor that is the same for
# all jobs changes nothing of the shares. Samples are steps × batch of the presets of `ml`, which is not to be loaded
# here; a test compares them.
TRANSFER_BATCH: Final = {"draft": 8, "quick": 8, "standard": 16, "paper": 32}
TRANSFER_STEPS: Final = {"draft": 0, "quick": 240, "standard": 2_000, "paper": 100_000}
FINETUNE_STEPS: Final = {"draft": 24, "quick": 240, "standard": 6_000, "paper": 30_000}
# Networks that are fine-tuned, in whole fine-tunings: the baseline always, the losers of a race by two thirds.
FINETUNINGS: Final = {"auto": 1 + 2 / 3 + 1, "pretrain": 2.0, "drtl-pretrain": 2.0, "baseline": 1.0}
SAMPLE_S: Final = 0.007  # A crop of 64×64 through vdsr at half resolution, forth and back, on one core.
SIZES: Final = {"vdsr-small": 0.5, "rcan": 25.0, "rdn": 25.0}  # What others compute, in times of `vdsr`.
AROUND_S: Final = 5.0  # Decoding, relating, measuring, registering.


def expected_work_s(options: Mapping[str, Any]) -> float:
    """Seconds of one core that a job with these options (of `JobOptions`) is expected to take."""
    preset, scheme = options.get("preset", "quick"), options.get("scheme", "auto")
    batch = TRANSFER_BATCH.get(preset, 8)
    transfer, finetune = options.get("transfer_steps"), options.get("finetune_steps")
    transfer = TRANSFER_STEPS.get(preset, 240) if transfer is None else transfer
    finetune = FINETUNE_STEPS.get(preset, 240) if finetune is None else finetune
    steps = finetune * FINETUNINGS.get(scheme, 1.0) + (0 if scheme == "baseline" else transfer)
    size = SIZES.get(options.get("backbone", "vdsr"), 1.0)
    size *= (2 / (options.get("unshuffle") or 2)) ** 2
    return float(AROUND_S + steps * batch * SAMPLE_S * size)


def charge_s(work_s: float, priority: Priority) -> float:
    """By how much a job moves its owner's turn on."""
    return work_s / WEIGHT[priority]


def rank(priority: Priority, now: float) -> float:
    """A job's place among its owner's, the least first; `now` in seconds since the epoch."""
    return now - AGEING_S * (PRIORITIES.index(priority) - PRIORITIES.index("normal"))


@dataclass(frozen=True)
class InLine:
    """An owner some of whose jobs wait."""

    owner: str
    turn: float
    held: float  # Workers that it holds now, each divided by the weight of its job's priority.
    resumes: bool  # Whether one of the jobs was begun before: it had its turn, and goes on with it.
    rank: float  # The least of its waiting jobs.
    jobs: int
    charge_s: float  # Of all its waiting jobs.

    @property
    def place(self) -> tuple[float, bool, float, float]:
        """The least is served first."""
        return self.held, not self.resumes, self.turn, self.rank


def next_of(in_line: Iterable[InLine]) -> InLine | None:
    """The owner that is served next; None where nobody waits."""
    return min(in_line, key=lambda each: each.place, default=None)


def jobs_ahead(others: Iterable[InLine], turn: float) -> int:
    """About how many waiting jobs of others are begun before a job whose owner's turn will be `turn` by then."""
    ahead = 0
    for other in others:
        mean_charge_s = other.charge_s / other.jobs
        ahead += min(other.jobs, max(0, math.ceil((turn - other.turn) / mean_charge_s)))
    return ahead

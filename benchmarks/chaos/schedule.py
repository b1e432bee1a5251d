"""Which faults come when: drawn from a seed, so that a storm can be had again."""

import random
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "api",
    "training child",
    "training parent",
    "inference worker",
    "clock",
    "broker",
    "database",
    "database backend",
    "frozen training",
    "FLUSHALL",
]
EVERYWHERE: Final[tuple[Kind, ...]] = (
    "api",
    "training child",
    "training parent",
    "inference worker",
    "clock",
    "broker",
    "frozen training",
    "FLUSHALL",
)
OF_THE_CLUSTER: Final[tuple[Kind, ...]] = ("database", "database backend")
RARE: Final[frozenset[Kind]] = frozenset({"clock", "frozen training", "FLUSHALL"})


@dataclass(frozen=True)
class Fault:
    """Something that is done to the service: at a time since the storm's begin, to one of several processes."""

    at_s: float
    kind: Kind
    choice: float  # 0…1: which of the processes that are meant.


def draw(seed: int, seconds: float, every_s: float, kinds: tuple[Kind, ...]) -> list[Fault]:
    """Faults from half to one and a half `every_s` apart: all kinds, the rare half as often, before any comes again."""
    drawn = random.Random(seed)
    faults: list[Fault] = []
    pack: list[Kind] = []
    at_s = 0.0
    while (at_s := at_s + every_s * drawn.uniform(0.5, 1.5)) < seconds:
        if not pack:
            pack = [kind for kind in kinds for _ in range(1 if kind in RARE else 2)]
            drawn.shuffle(pack)
        faults.append(Fault(round(at_s, 2), pack.pop(), round(drawn.random(), 3)))
    return faults

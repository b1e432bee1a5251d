"""What is planned to be trained, in what order, and how long it will take."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

About = dict[str, str | int]
ENOUGH: Final = 3  # Trainings after which what is left can be told.


@dataclass(frozen=True)
class Planned:
    """One record to be made.

    `about` names it, and another of the same name is the same record. `cost` is what it will compute, in
    multiplications; those `like` it take about as long for their cost. `steps` of training are reported while it runs.
    """

    about: About
    like: str
    cost: float
    steps: int
    run: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """What one table or figure needs and no earlier one has asked for."""

    name: str
    planned: list[Planned]


def stages(wanted: Mapping[str, Iterable[Planned]], holds: Callable[[About], bool]) -> list[Stage]:
    """What is still to be done for each, every record once."""
    asked: set[frozenset[tuple[str, str | int]]] = set()
    found = []
    for name, planned in wanted.items():
        own = []
        for each in planned:
            key = frozenset(each.about.items())
            if key not in asked and not holds(each.about):
                own.append(each)
            asked.add(key)
        found.append(Stage(name, own))
    return found


class Estimate:
    """Learns from what was made how long the rest will take."""

    def __init__(self) -> None:
        self._made: dict[str, list[tuple[float, float]]] = {}
        self._trainings: list[tuple[float, float]] = []

    def learn(self, planned: Planned, seconds: float) -> None:
        self._made.setdefault(planned.like, []).append((planned.cost, seconds))
        if planned.steps:
            self._trainings.append((planned.cost, seconds))

    @property
    def trainings(self) -> int:
        return len(self._trainings)

    def seconds(self, planned: Iterable[Planned]) -> float | None:
        """By those like it where there are any, else by all trainings. None before the first of these."""
        if not self._trainings:
            return None
        return sum(each.cost * _seconds_per_cost(self._made.get(each.like, self._trainings)) for each in planned)


def in_words(seconds: float) -> str:
    """`2 h 05 min`, `12 min` or `40 s`."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    return f"{round(seconds / 60)} min" if seconds >= 90 else f"{seconds:.0f} s"


def _seconds_per_cost(made: list[tuple[float, float]]) -> float:
    return sum(seconds for _, seconds in made) / sum(cost for cost, _ in made)

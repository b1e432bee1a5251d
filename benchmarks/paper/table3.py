"""Table 3: γ of a relation network with and without a memory bank, both trained for the occasion under equal steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.paper.records import (
    METRICS,
    Record,
    Report,
    markdown,
    mean_of,
    metrics_in,
    number,
    over_targets,
    records,
    same_seeds,
    shots_of,
    targets,
)

if TYPE_CHECKING:  # Reading records needs no torch.
    from benchmarks.paper.planning import Planned
    from benchmarks.paper.study import Study

TITLE: Final = "Table 3: the memory bank"


def plan(study: Study) -> list[Planned]:
    sizes = (study.memory_nodes, 0)
    return [
        *(study.input(target) for target in study.targets),
        *(study.relation_network(nodes, "cosine", seed) for seed in study.seeds for nodes in sizes),
        *(
            study.by_own_network(nodes, target, seed)
            for seed in study.seeds
            for target in study.targets
            for nodes in sizes
        ),
    ]


def columns(report: Report, target: str) -> dict[str, list[Record]]:
    """With a memory bank, and without."""
    about = {"kind": "memory", "target": target, "backbone": report["backbone"], "shots": shots_of(report, target)}
    found = records(report, **about)
    with_bank, without = same_seeds(
        [
            [record for record in found if record["memory_nodes"] > 0],
            [record for record in found if record["memory_nodes"] == 0],
        ]
    )
    return {"with memory bank": with_bank, "without": without}


def table(report: Report) -> str:
    """With and without, and the difference, in each metric."""
    parts = []
    measured = metrics_in(cell for target in targets(report) for cell in columns(report, target).values())
    for metric in measured:

        def row(target: str, metric: str = metric) -> list[float | None]:
            with_bank, without = (mean_of(cell, metric) for cell in columns(report, target).values())
            return [with_bank, without, None if with_bank is None or without is None else with_bank - without]

        rows = [
            [name, *(number(value, metric) for value in values[:2]), number(values[2], metric, signed=True)]
            for name, values in over_targets(report, row, 3)
        ]
        parts.append(markdown([METRICS[metric], "with memory bank", "without", "difference"], rows))
    return "\n\n".join(parts)

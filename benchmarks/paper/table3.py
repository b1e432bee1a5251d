"""Table 3: γ of relation networks with and without a memory bank, trained for the occasion under equal steps.

Beside the paper's two there is one with a bank whose Eq. (6) and (8) are as printed.
"""

from __future__ import annotations

from dataclasses import replace
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
    from ml.drn import DrnShape

TITLE: Final = "Table 3: the memory bank"
LITERAL: Final = "with it, Eq. (6) as printed"


def plan(study: Study) -> list[Planned]:
    shapes = variants(study.drn_shape)
    return [
        *(study.input(target) for target in study.targets),
        *(study.relation_network(shape, seed) for seed in study.seeds for shape in shapes),
        *(
            study.by_own_network(shape, target, seed)
            for seed in study.seeds
            for target in study.targets
            for shape in shapes
        ),
    ]


def variants(shape: DrnShape) -> list[DrnShape]:
    """With a memory bank, without, and with one whose nodes are tied as the paper prints it."""
    return [shape, replace(shape, memory_nodes=0), replace(shape, affinity="literal")]


def columns(report: Report, target: str) -> dict[str, list[Record]]:
    """With a memory bank, without, and the former with Eq. (6) as printed; none where that was not measured."""
    about = {"kind": "memory", "target": target, "backbone": report["backbone"], "shots": shots_of(report, target)}
    found = records(report, **about)
    literal = [record for record in found if record.get("affinity") == "literal"]  # Older records do not say.
    scaled = [record for record in found if record not in literal]
    with_bank = [record for record in scaled if record["memory_nodes"] > 0]
    without = [record for record in scaled if record["memory_nodes"] == 0]
    names = ["with memory bank", "without", LITERAL]
    return dict(zip(names, same_seeds([with_bank, without, literal]), strict=True))


def table(report: Report) -> str:
    """With and without, and the difference, in each metric; beside it Eq. (6) as printed, where that was measured."""
    parts = []
    cells = [cell for target in targets(report) for cell in columns(report, target).values()]
    literal = any(columns(report, target)[LITERAL] for target in targets(report))
    for metric in metrics_in(cells):

        def row(target: str, metric: str = metric) -> list[float | None]:
            with_bank, without, as_printed = (mean_of(cell, metric) for cell in columns(report, target).values())
            return [
                *(with_bank, without, None if with_bank is None or without is None else with_bank - without),
                *((as_printed, None if with_bank is None or as_printed is None else with_bank - as_printed) * literal),
            ]

        head = ["with memory bank", "without", "difference", *([LITERAL, "difference"] * literal)]
        rows = [
            [name, *(number(value, metric, signed=head[place] == "difference") for place, value in enumerate(values))]
            for name, values in over_targets(report, row, len(head))
        ]
        parts.append(markdown([METRICS[metric], *head], rows))
    return "\n\n".join(parts)

"""Fig. 6: whether the relation predicts transfer: pre-training on each auxiliary task alone.

By γ with each kind of edges, as in the paper, and by what a read-out of each task's expert gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from scipy.stats import spearmanr

from benchmarks.paper.records import (
    MEAN,
    Report,
    average,
    markdown,
    mean_of,
    number,
    records,
    same_seeds,
    shots_of,
    targets,
    the_input,
)

if TYPE_CHECKING:  # Reading records needs no torch.
    from benchmarks.paper.planning import Planned
    from benchmarks.paper.study import Study
    from ml.edges import Edges

TITLE: Final = "Fig. 6: relation and transferability"
EDGES: Final[dict[Edges, str]] = {"cosine": "cosine", "l1": "L1", "l2": "L2"}
Network = Literal["shipped", "own", "experts"]
NETWORKS: Final[dict[Network, str]] = {
    "shipped": "the shipped prior",
    "own": "networks trained with these edges",
    "experts": "of the shipped experts",
}
MEASURES: Final[dict[Network, dict[str, str]]] = {
    "shipped": {str(edges): words for edges, words in EDGES.items()},
    "own": {str(edges): words for edges, words in EDGES.items()},
    "experts": {"read-out": "read-out"},
}


def plan(study: Study) -> list[Planned]:
    planned = [study.input(target) for target in study.targets]
    for seed in study.seeds:
        planned += [study.relation_network(replace(study.drn_shape, edges=edges), seed) for edges in EDGES]
        for target in study.targets:
            planned += [study.graph(target, seed), study.read_out(target, seed)]
            planned += [study.own_gamma(edges, target, seed) for edges in EDGES]
            planned += [study.on_one_task(task, target, seed) for task in study.tasks]
    return planned


@dataclass(frozen=True)
class Point:
    """One auxiliary task: its relation, and how much better than the input a network is that was pre-trained on it.

    `relation` is γ, or what a read-out of its expert gains in dB.
    """

    task: str
    relation: float
    gain_db: float


def points(report: Report, network: Network, edges: str, target: str) -> list[Point]:
    """Means over the seeds that both have."""
    about = {"target": target, "shots": shots_of(report, target)}
    kinds: dict[Network, Any] = {
        "shipped": {"kind": "graph"},
        "own": {"kind": "own gamma", "edges": edges},
        "experts": {"kind": "read-out"},
    }
    trained = records(report, kind="one task", backbone=report["backbone"], **about)
    found = []
    for task in dict.fromkeys(record["task"] for record in trained):
        own = [record for record in trained if record["task"] == task]
        related, own = same_seeds([records(report, **kinds[network], **about), own])
        psnr = mean_of(own, "psnr")
        relation = average(_relation(record, network, edges)[task] for record in related)
        if psnr is not None and relation is not None:
            found.append(Point(task, relation, psnr - the_input(report, target)["psnr"]))
    return found


def mean_points(of_targets: Sequence[Sequence[Point]]) -> list[Point]:
    """Relation and gain of each task, averaged over the targets; only of tasks that all have."""
    by_task = [{point.task: point for point in points} for points in of_targets]
    shared = [task for task in by_task[0] if all(task in points for points in by_task)] if by_task else []
    return [
        Point(
            task,
            sum(points[task].relation for points in by_task) / len(by_task),
            sum(points[task].gain_db for points in by_task) / len(by_task),
        )
        for task in shared
    ]


def correlation(found: Sequence[Point]) -> float | None:
    """Spearman's ρ between relation and gain; None for fewer than three tasks, or where all are alike."""
    relation, gain = [point.relation for point in found], [point.gain_db for point in found]
    if len(found) < 3 or len(set(relation)) == 1 or len(set(gain)) == 1:
        return None
    return float(spearmanr(relation, gain).statistic)


def drawn(report: Report) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """Network → measure → target → points, with the mean of more than one target."""
    found: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for network, words in NETWORKS.items():
        for edges, shown_edges in MEASURES[network].items():
            by_target = {target: points(report, network, edges, target) for target in targets(report)}
            if len(by_target) > 1:
                by_target[MEAN] = mean_points(list(by_target.values()))
            found.setdefault(words, {})[shown_edges] = by_target
    return found


def table(report: Report) -> str:
    """ρ for each measure of the relation, then what it was computed from."""
    names = targets(report)
    head = ["Spearman's ρ", *names, "of the targets' means", "mean of the targets' ρ"]
    rows = []
    for network, words in NETWORKS.items():
        for edges, shown_edges in MEASURES[network].items():
            found = [points(report, network, edges, target) for target in names]
            rho = [correlation(each) for each in found]
            values = [*rho, correlation(mean_points(found)), average(rho)]
            rows.append([f"{shown_edges}, {words}", *(number(value) for value in values)])
    parts = [markdown(head, rows)]
    for target in names:
        by_gain = sorted(points(report, "shipped", "cosine", target), key=lambda point: -point.gain_db)
        promised = {point.task: point.relation for point in points(report, "experts", "read-out", target)}
        lines = [
            [
                point.task,
                f"{point.relation:.3f}",
                number(promised.get(point.task), signed=True),
                number(point.gain_db, signed=True),
            ]
            for point in by_gain
        ]
        head = ["pre-trained on", "γ (cosine)", "gain of the read-out (dB)", "gain over the input (dB)"]
        parts += [f"**{target}**", markdown(head, lines)]
    return "\n\n".join(parts)


def _relation(record: Any, network: Network, edges: str) -> dict[str, float]:
    if network == "experts":
        by_task: dict[str, float] = record["gain_db"]
    else:
        by_task = record["gamma"][edges] if network == "shipped" else record["gamma"]
    return by_task

"""Fig. 6: whether γ predicts transfer, by the edges of the graph: pre-training on each auxiliary task alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

TITLE: Final = "Fig. 6: γ and transferability"
EDGES: Final[dict[Edges, str]] = {"cosine": "cosine", "l1": "L1", "l2": "L2"}
Network = Literal["shipped", "own"]
NETWORKS: Final[dict[Network, str]] = {
    "shipped": "the shipped prior",
    "own": "networks trained with these edges",
}


def plan(study: Study) -> list[Planned]:
    planned = [study.input(target) for target in study.targets]
    for seed in study.seeds:
        planned += [study.relation_network(study.memory_nodes, edges, seed) for edges in EDGES]
        for target in study.targets:
            planned.append(study.graph(target, seed))
            planned += [study.own_gamma(edges, target, seed) for edges in EDGES]
            planned += [study.on_one_task(task, target, seed) for task in study.tasks]
    return planned


@dataclass(frozen=True)
class Point:
    """One auxiliary task: its γ, and how much better than the input a network is that was pre-trained on it alone."""

    task: str
    gamma: float
    gain_db: float


def points(report: Report, network: Network, edges: str, target: str) -> list[Point]:
    """Means over the seeds that both have."""
    about = {"target": target, "shots": shots_of(report, target)}
    kind = {"kind": "graph"} if network == "shipped" else {"kind": "own gamma", "edges": edges}
    trained = records(report, kind="one task", backbone=report["backbone"], **about)
    found = []
    for task in dict.fromkeys(record["task"] for record in trained):
        own = [record for record in trained if record["task"] == task]
        related, own = same_seeds([records(report, **kind, **about), own])
        psnr = mean_of(own, "psnr")
        gamma = average(_gamma(record, network, edges)[task] for record in related)
        if psnr is not None and gamma is not None:
            found.append(Point(task, gamma, psnr - the_input(report, target)["psnr"]))
    return found


def mean_points(of_targets: Sequence[Sequence[Point]]) -> list[Point]:
    """γ and gain of each task, averaged over the targets; only of tasks that all have."""
    by_task = [{point.task: point for point in points} for points in of_targets]
    shared = [task for task in by_task[0] if all(task in points for points in by_task)] if by_task else []
    return [
        Point(
            task,
            sum(points[task].gamma for points in by_task) / len(by_task),
            sum(points[task].gain_db for points in by_task) / len(by_task),
        )
        for task in shared
    ]


def correlation(found: Sequence[Point]) -> float | None:
    """Spearman's ρ between γ and gain; None for fewer than three tasks, or where all are alike."""
    gamma, gain = [point.gamma for point in found], [point.gain_db for point in found]
    if len(found) < 3 or len(set(gamma)) == 1 or len(set(gain)) == 1:
        return None
    return float(spearmanr(gamma, gain).statistic)


def drawn(report: Report) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """Network → edges → target → points, with the mean of more than one target."""
    found: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for network, words in NETWORKS.items():
        for edges, shown_edges in EDGES.items():
            by_target = {target: points(report, network, edges, target) for target in targets(report)}
            if len(by_target) > 1:
                by_target[MEAN] = mean_points(list(by_target.values()))
            found.setdefault(words, {})[shown_edges] = by_target
    return found


def table(report: Report) -> str:
    """ρ for each of the edges, then what it was computed from."""
    names = targets(report)
    head = ["Spearman's ρ", *names, "of the targets' means", "mean of the targets' ρ"]
    rows = []
    for network, words in NETWORKS.items():
        for edges, shown_edges in EDGES.items():
            found = [points(report, network, edges, target) for target in names]
            rho = [correlation(each) for each in found]
            values = [*rho, correlation(mean_points(found)), average(rho)]
            rows.append([f"{shown_edges}, {words}", *(number(value) for value in values)])
    parts = [markdown(head, rows)]
    for target in names:
        by_gain = sorted(points(report, "shipped", "cosine", target), key=lambda point: -point.gain_db)
        lines = [[point.task, f"{point.gamma:.3f}", number(point.gain_db, signed=True)] for point in by_gain]
        parts += [f"**{target}**", markdown(["pre-trained on", "γ (cosine)", "gain over the input (dB)"], lines)]
    return "\n\n".join(parts)


def _gamma(record: Any, network: Network, edges: str) -> dict[str, float]:
    gamma: dict[str, float] = record["gamma"][edges] if network == "shipped" else record["gamma"]
    return gamma

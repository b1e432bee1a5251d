"""Fig. 4: the nodes of the relation graph, (a) in the plane, (b) by their adjacency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.paper.records import Report, markdown, records, shots_of, targets

if TYPE_CHECKING:  # Reading records needs no torch.
    from benchmarks.paper.planning import Planned
    from benchmarks.paper.study import Study

TITLE: Final = "Fig. 4: the relation graph"


def plan(study: Study) -> list[Planned]:
    inputs = [study.input(target) for target in study.targets]
    return [*inputs, *(study.graph(target, seed) for target in study.targets for seed in study.seeds[:1])]


@dataclass(frozen=True)
class Embedding:
    """Points in the plane of the first two principal components of the auxiliary samples."""

    samples: dict[str, list[tuple[float, float]]]
    pairs: dict[str, list[tuple[float, float]]]  # of each target


@dataclass(frozen=True)
class Adjacency:
    """Cosines of nodes: auxiliary distortions, then targets, against the auxiliary distortions."""

    rows: list[str]
    columns: list[str]
    cosines: list[list[float]]


def graphs(report: Report) -> dict[str, dict[str, Any]]:
    """The graph of each target, of the first seed."""
    found = {}
    for target in targets(report):
        own = records(report, kind="graph", target=target, shots=shots_of(report, target))
        if own:
            found[target] = min(own, key=lambda record: int(record["seed"]))["graph"]
    return found


def embedding(report: Report) -> Embedding:
    """The auxiliary nodes are the same in every target's graph."""
    found = graphs(report)
    nodes = next(iter(found.values()))["nodes"]
    samples = {node["id"]: _points(node) for node in nodes if node["kind"] == "auxiliary"}
    pairs = {
        target: _points(next(node for node in graph["nodes"] if node["kind"] == "target"))
        for target, graph in found.items()
    }
    return Embedding(samples, pairs)


def adjacency(report: Report) -> Adjacency:
    """Symmetric among the auxiliary distortions, with ones on its diagonal."""
    found = graphs(report)
    first = next(iter(found.values()))
    names = [node["id"] for node in first["nodes"] if node["kind"] == "auxiliary"]
    rows = [[1.0 if one == other else _cosine(first, one, other) for other in names] for one in names]
    rows += [[_cosine(graph, name, "target") for name in names] for graph in found.values()]
    return Adjacency([*names, *found], names, rows)


def table(report: Report) -> str:
    """The adjacency in numbers."""
    if not graphs(report):
        return ""
    matrix = adjacency(report)
    rows = [[name, *(f"{cosine:.2f}" for cosine in row)] for name, row in zip(matrix.rows, matrix.cosines, strict=True)]
    said = [f"- {target}: {graph['graph']['sentence']}" for target, graph in graphs(report).items()]
    return "\n\n".join([markdown(["cosine", *matrix.columns], rows), "\n".join(said)])


def _points(node: dict[str, Any]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in node["samples"]]


def _cosine(graph: dict[str, Any], one: str, other: str) -> float:
    return next(float(link["cosine"]) for link in graph["links"] if {link["source"], link["target"]} == {one, other})

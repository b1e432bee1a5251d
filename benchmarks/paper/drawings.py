"""The figures, from plain numbers: colour-blind-safe, with units, as SVG and PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # Not pyplot: no window, no state between figures.

from benchmarks.paper.fig4 import Adjacency, Embedding
from benchmarks.paper.fig6 import Point, correlation
from benchmarks.paper.records import MEAN

# Okabe and Ito's palette, which the common kinds of colour blindness keep apart; black is for targets.
COLOURS: Final = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
TELLING_APART: Final = (4, 0, 2, 5, 6, 1, 3)  # Of these, the few that targets take.
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")  # Tell apart what a copy in grey would not.
TARGET_MARKERS: Final = ("*", "P", "X", "D", "s", "^", "v")
STYLE: Final[dict[Any, Any]] = {  # matplotlib would have every key typed as one of its own.
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "drtl",  # The same numbers give the same file.
}


def save(figure: Figure, folder: Path, name: str) -> None:
    """Both forms of a figure."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
        figure.savefig(folder / f"{name}.png", dpi=160, bbox_inches="tight")


def embedding(nodes: Embedding) -> Figure:
    """Fig. 4(a): every sample of the auxiliary distortions, and the pairs of each target."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4))
        axes = figure.subplots()
        for place, (name, points) in enumerate(nodes.samples.items()):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            _scatter(axes, points, name, c=colour, marker=marker, s=24, edgecolors="0.35", linewidths=0.3)
        for place, (target, points) in enumerate(nodes.pairs.items()):
            marker = TARGET_MARKERS[place % len(TARGET_MARKERS)]
            size = 150 if marker == "*" else 75  # A star looks smaller than it is.
            _scatter(axes, points, f"{target} (target)", c="black", marker=marker, s=size, edgecolors="white")
        axes.set_xlabel("first principal component of the nodes (no unit)")
        axes.set_ylabel("second principal component (no unit)")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return figure


def adjacency(matrix: Adjacency) -> Figure:
    """Fig. 4(b): cosines of nodes; the targets below the line."""
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        height, width = len(matrix.rows), len(matrix.columns)
        figure = Figure(figsize=(1.9 + 0.62 * width, 1.2 + 0.42 * height))
        axes = figure.subplots()
        least = min(0.0, *map(min, matrix.cosines))
        image = axes.imshow(matrix.cosines, cmap="cividis", vmin=least, vmax=1, aspect="auto")
        axes.set_xticks(range(width), matrix.columns, rotation=40, ha="right")
        axes.set_yticks(range(height), matrix.rows)
        axes.set_xlabel("auxiliary distortion")
        axes.set_ylabel("auxiliary distortion, then target")
        middle = (least + 1) / 2
        for row, cosines in enumerate(matrix.cosines):
            for column, cosine in enumerate(cosines):
                ink = "black" if cosine > middle else "white"
                axes.text(column, row, f"{cosine:.2f}", ha="center", va="center", color=ink, fontsize=8)
        axes.axhline(width - 0.5, color="white", linewidth=3)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.colorbar(image, label="cosine of nodes (no unit)")
        return figure


def transferability(found: Mapping[str, Mapping[str, Mapping[str, Sequence[Point]]]]) -> Figure:
    """Fig. 6: the relation of every auxiliary task against what pre-training on it alone gives.

    `found` is network → measure → target → points; networks with fewer measures leave panels empty.

    Gains of different targets differ by decibels, so each target's are shown about their mean.
    """
    with mpl.rc_context(STYLE):
        edges = list(next(iter(found.values())))
        figure = Figure(figsize=(3.4 * len(edges), 3.1 * len(found)), layout="constrained")
        panels = figure.subplots(len(found), len(edges), squeeze=False, sharey=True)
        for row, (network, by_edges) in enumerate(found.items()):
            for column, (edge, by_target) in enumerate(by_edges.items()):
                _points(panels[row][column], by_target)
                read_out = edge == "read-out"
                panels[row][column].set_title(f"{edge}{' edges' * (not read_out)},\n{network}", fontsize=9)
                panels[row][column].set_xlabel("gain of the read-out (dB)" if read_out else "γ (no unit)")
            for panel in panels[row][len(by_edges) :]:
                panel.set_axis_off()
            panels[row][0].set_ylabel("PSNR about the target's mean (dB)")
        return figure


def _points(axes: Axes, by_target: Mapping[str, Sequence[Point]]) -> None:
    for place, (target, points) in enumerate(by_target.items()):
        middle = sum(point.gain_db for point in points) / max(1, len(points))
        shown = [(point.relation, point.gain_db - middle) for point in points]
        rho = correlation(points)
        label = f"{target}, ρ {rho:.2f}" if rho is not None else target
        colour = "black" if target == MEAN else COLOURS[TELLING_APART[place % len(TELLING_APART)]]
        _scatter(axes, shown, label, c=colour, marker=MARKERS[place % len(MARKERS)], s=30, linewidths=0)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def pairs_curve(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], words: Mapping[str, str]) -> Figure:
    """Fig. 7: PSNR by the number of pairs, a panel for each target."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(curves), 3.0), layout="constrained")
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        looks = (("#D55E00", "s", "--"), ("#0072B2", "o", "-"))
        for axes, (target, by_scheme) in zip(panels, curves.items(), strict=True):
            for (scheme, points), (colour, marker, line) in zip(by_scheme.items(), looks, strict=True):
                x, y = zip(*points, strict=True) if points else ((), ())
                axes.plot(x, y, color=colour, marker=marker, linestyle=line, label=words[scheme])
            axes.set_title(target, fontsize=9)
            axes.set_xlabel("pairs of the target (number)")
            axes.set_xticks(sorted({shots for points in by_scheme.values() for shots, _ in points}))
        panels[0].set_ylabel("PSNR on unseen images (dB)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return figure


def _scatter(axes: Axes, points: Sequence[tuple[float, float]], label: str, **style: Any) -> None:
    x, y = zip(*points, strict=True) if points else ((), ())
    axes.scatter(x, y, label=label, **style)

"""Writes tables and figures beside the records; measures nothing."""

from pathlib import Path
from typing import Any

from benchmarks.paper import drawings, fig4, fig6, fig7
from benchmarks.paper.document import measured, page
from benchmarks.paper.records import targets


def write(report: dict[str, Any], folder: Path) -> None:
    """`results.md`, and figures/ with each figure as SVG and PNG."""
    there, figures = measured(report), folder / "figures"
    if "fig4" in there:
        drawings.save(drawings.embedding(fig4.embedding(report)), figures, "fig4a")
        drawings.save(drawings.adjacency(fig4.adjacency(report)), figures, "fig4b")
    if "fig6" in there:
        drawings.save(drawings.transferability(fig6.drawn(report)), figures, "fig6")
    if "fig7" in there:
        curves = {target: fig7.curves(report, target) for target in targets(report)}
        drawings.save(drawings.pairs_curve(curves, fig7.SCHEMES), figures, "fig7")
    partial = folder / "results.md.partial"
    partial.write_text(page(report) + "\n")
    partial.replace(folder / "results.md")

"""All tables as one page of Markdown, from the records alone."""

from collections.abc import Callable
from typing import Any, Final

from benchmarks.paper import fig4, fig6, fig7, table1, table2, table3
from benchmarks.paper.records import Report, records, targets, trained_in

SECTIONS: Final[dict[str, tuple[str, Callable[[Report], str], dict[str, str]]]] = {
    "table1": (table1.TITLE, table1.table, {}),
    "table2": (table2.TITLE, table2.table, {}),
    "table3": (table3.TITLE, table3.table, {}),
    "fig4": (
        fig4.TITLE,
        fig4.table,
        {"fig4a": "Nodes of auxiliary samples and targets", "fig4b": "Adjacency of nodes"},
    ),
    "fig6": (fig6.TITLE, fig6.table, {"fig6": "The relation against the gain of pre-training on one task"}),
    "fig7": (fig7.TITLE, fig7.table, {"fig7": "PSNR by the number of pairs"}),
}
EVIDENCE: Final = {  # The kind of record without which a section would be empty.
    "table1": "training",
    "table2": "dip",
    "table3": "memory",
    "fig4": "graph",
    "fig6": "one task",
    "fig7": "training",
}


def measured(report: Report) -> list[str]:
    """The sections that there are records for."""
    there = [name for name, kind in EVIDENCE.items() if targets(report) and records(report, kind=kind)]
    return [name for name in there if name != "fig7" or fig7.is_measured(report)]


def page(report: dict[str, Any], *, figures: bool = True) -> str:
    """Title, then each section with its tables and figures; `figures` links the pictures beside the page."""
    parts = ["# The paper's tables and figures", recorded(report)] if figures else [recorded(report)]
    for name in measured(report):
        title, table, pictures = SECTIONS[name]
        parts.append(f"## {title}" if figures else f"**{title}**")
        if figures:
            parts += [f"![{words}](figures/{picture}.png)" for picture, words in pictures.items()]
        parts.append(table(report))
    return "\n\n".join(parts)


def recorded(report: Report) -> str:
    """What was run, how much of it, where and when."""
    seeds = sorted({trial["seed"] for trial in report["trials"] if "seed" in trial})
    machine = report["machine"]
    plain, deep = report["plain"], report["deep"]
    unseen = "whole" if plain["side"] is None else f"the middle {plain['side']}×{plain['side']}"
    ran = f"`{report['command']}`, {report['date'][:10]}, commit `{report['commit']}`"
    on = f"{machine['cores']} cores of {machine['cpu']}" + (f", {report['accelerator']}" * bool(report["accelerator"]))
    on += trained_in(report)
    deep_steps = _steps(deep) + ", both cut down" * report["cut_down"]
    learnt = f"{report['shots']} pairs; seeds {', '.join(map(str, seeds))}; {_steps(plain)}, RCAN and RDN {deep_steps}"
    sizes = f"at 1/{report['unshuffle']} and 1/{report['deep_unshuffle']} of the resolution"
    count = "all" if plain["images"] is None else f"up to {plain['images']}"
    shown = f"{count} unseen images, {unseen}"
    guided = f"; guided by {report['prefer']}" if "prefer" in report else ""
    of = f"Of everything but Table 1, the backbone is {report['backbone']}."
    return f"{ran}: {on}; {learnt}, {sizes}; {_rates(report)}{guided}; {shown}. {of}"


def _rates(report: Report) -> str:
    schedules = report["schedules"]
    transfer, finetune = schedules["transfer"]["learning_rate"], schedules["finetune"]["learning_rate"]
    said = f"learning rates {schedules['scratch_rate']:g} from nothing, {transfer:g} of transfer, {finetune:g} after it"
    trained = {trial.get("backbone") for trial in report["trials"]}
    fractions = {name: part for name, part in schedules.get("fractions", {}).items() if name in trained}
    return said + "".join(f", {part:g} of the last two for {name}" for name, part in fractions.items())


def _steps(scale: dict[str, Any]) -> str:
    return f"{scale['transfer_steps']} + {scale['finetune_steps']} steps of {scale['batch']} crops"

"""What `make chaos` has recorded, as the tables of docs/reliability.md."""

from collections.abc import Iterator
from typing import Any, Final

PARTS: Final = ("storm", "duplicates", "clocks", "disk")


def chaos_table(report: dict[str, Any]) -> str:
    """Invariants, then the times that it took to recover."""
    return "\n".join([*_invariants(report), "", *_times(report), "", *_circumstances(report)])


def _invariants(report: dict[str, Any]) -> Iterator[str]:
    yield f"| {report['mode']} | what must be true | is it | evidence |"
    yield "|---|---|---|---|"
    for part in PARTS:
        for verdict in report.get(part, {}).get("invariants", []):
            said = "not tried" if "not_tried" in verdict["evidence"] else "yes" if verdict["held"] else "**no**"
            yield f"| {part} | {verdict['invariant']} | {said} | {_evidence(verdict['evidence'])} |"


def _evidence(facts: dict[str, Any]) -> str:
    """The plain ones; what is wrong, where something is, is in the recorded file."""
    plain = {name: value for name, value in facts.items() if isinstance(value, int | float | str) and value != ""}
    counted = {
        f"{name} {key}": value
        for name, mapping in facts.items()
        if isinstance(mapping, dict)
        for key, value in mapping.items()
        if isinstance(value, int)
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (plain | counted).items())


def _times(report: dict[str, Any]) -> Iterator[str]:
    storm = report["storm"]
    yield "| after the loss of (or as named) | times | ready after: p50, max | the job steps after: p50, max |"
    yield "|---|---|---|---|"
    for kind, count in storm["faults_done"].items():
        cells = [_cell(storm[key].get(kind)) for key in ("until_ready", "until_the_next_step")]
        yield f"| {kind} | {count} | {cells[0]} | {cells[1]} |"


def _cell(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['p50_s']:.2f} s, {found['max_s']:.2f} s"


def _circumstances(report: dict[str, Any]) -> Iterator[str]:
    plan, machine = report["storm"]["plan"], report["machine"]
    yield (
        f"`{report['command']}`: {plan['jobs']} jobs, {sum(report['storm']['faults_done'].values())} faults in "
        f"{plan['seconds']:g} s, seed {plan['seed']}; {machine['cores']} cores ({machine['cpu']}); "
        f"recorded {report['date'][:10]}."
    )

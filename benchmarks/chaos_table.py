"""What `make chaos` has recorded, as the tables of docs/reliability.md."""

from collections.abc import Iterator
from typing import Any, Final

PARTS: Final = ("storm", "duplicates", "clocks", "disk")


def chaos_table(report: dict[str, Any]) -> str:
    """Invariants, then, of a storm, the times that it took to recover."""
    times = [*_times(report["storm"]), ""] if "storm" in report else []
    return "\n".join([*_invariants(report), "", *times, _circumstances(report)])


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


def _times(storm: dict[str, Any]) -> Iterator[str]:
    yield "| after the loss of (or as named) | times | ready after: p50, max | the job steps after: p50, max |"
    yield "|---|---|---|---|"
    for kind, count in storm["faults_done"].items():
        cells = [_cell(storm[key].get(kind)) for key in ("until_ready", "until_the_next_step")]
        yield f"| {kind} | {count} | {cells[0]} | {cells[1]} |"


def _cell(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['p50_s']:.2f} s, {found['max_s']:.2f} s"


def _circumstances(report: dict[str, Any]) -> str:
    done = []
    if storm := report.get("storm"):
        plan, faults = storm["plan"], sum(storm["faults_done"].values())
        done = [f"{plan['jobs']} jobs, {faults} faults in {plan['seconds']:g} s, seed {plan['seed']}"]
    done.append(f"{report['machine']['cores']} cores ({report['machine']['cpu']})")
    return f"`{report['command']}`: {'; '.join(done)}; recorded {report['date'][:10]}."

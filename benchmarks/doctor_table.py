"""The recorded measurements of the pair doctor as the tables of docs/results.md."""

from collections.abc import Callable
from typing import Any


def doctor_table(report: dict[str, Any]) -> str:
    """One table for each part that was measured, with what it was recorded on below it."""
    sections = []
    for name, rows in TABLES.items():
        if name in report["parts"]:
            part = report["parts"][name]
            recorded = f"`{part['command']}`, {part['date'][:10]}, commit `{part['commit']}`."
            sections.append("\n".join([*rows(part["measured"]), "", recorded]))
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    return "\n\n".join([*sections, f"Recorded on {machine}, seed {report['seed']}, {report['pairs']} pairs a target."])


def _registration(measured: dict[str, Any]) -> list[str]:
    lines = [
        "| target (trials) | shift error, px | rotation error | scale error | gain error |",
        "|---|---|---|---|---|",
    ]
    for target, row in measured.items():
        shift, rotation, scale, gain = (row[name] for name in ("shift_px", "rotation_deg", "scale", "gain"))
        cells = [
            f"{target} ({row['trials']})",
            f"{shift['median']:.3f}, {shift['p95']:.3f}",
            f"{rotation['median']:.3f}°, {rotation['p95']:.3f}°",
            f"{scale['median']:.3%}, {scale['p95']:.3%}",
            f"{gain['median']:.1%}, {gain['p95']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _findings(measured: dict[str, Any]) -> list[str]:
    lines = ["| finding | cases that have it | precision | recall |", "|---|---|---|---|"]
    for code, row in measured["findings"].items():
        has = row["right"] + row["missed"]
        lines.append(f"| `{code}` | {has} | {row['precision']:.1%} | {row['recall']:.1%} |")
    rejected = f"{measured['trainable_pairs_rejected']} of {measured['trainable_pairs']}"
    return [*lines, "", f"Of pairs that can be trained on, {rejected} were rejected."]


def _duplicates(measured: dict[str, Any]) -> list[str]:
    return [
        "| duplicates, among pairs of images | precision | recall |",
        "|---|---|---|",
        f"| {measured['pairs_of_images']} | {measured['precision']:.1%} | {measured['recall']:.1%} |",
    ]


def _time(measured: dict[str, Any]) -> list[str]:
    rows = [f"| {target} | {seconds:.2f} s |" for target, seconds in measured.items()]
    return ["| one examination | processor time, median |", "|---|---|", *rows]


def _training(measured: dict[str, Any]) -> list[str]:
    names = {
        "input_db": "the input",
        "unshifted_db": "the pairs as they are",
        "shifted_aligned_db": "shifted by 3 px, after `align`",
        "shifted_db": "shifted by 3 px",
        "shifted_tolerant_loss_db": "shifted by 3 px, loss `shift_tolerant`",
    }
    heading = f"{measured['target']}, {measured['steps']} steps from nothing, {measured['test_pairs']} unseen images"
    rows = [f"| {title} | {measured[name]:.2f} dB |" for name, title in names.items() if name in measured]
    return [f"| trained on ({heading}) | PSNR |", "|---|---|", *rows]


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "registration": _registration,
    "findings": _findings,
    "duplicates": _duplicates,
    "time": _time,
    "training": _training,
}

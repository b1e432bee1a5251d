"""One scheme against another, seed by seed: what the tables' means over seeds do not show.

`python benchmarks/by_seed.py FILE SCHEME OTHER [--backbone vdsr]` prints SCHEME − OTHER of a file of
benchmarks/results/ in PSNR (dB) on unseen images, where both were measured with the seed.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer


def compare(
    file: Annotated[Path, typer.Argument(exists=True, help="Of `auto_race.py` or `drtl bench paper`.")],
    scheme: str,
    other: str,
    backbone: Annotated[str | None, typer.Option(help="Of Table 1, where there are several.")] = None,
) -> None:
    """Print the table."""
    typer.echo(by_seed(json.loads(file.read_text()), scheme, other, backbone))


def by_seed(report: dict[str, Any], scheme: str, other: str, backbone: str | None) -> str:
    """A target in each row, a seed in each column; then means. Raises ValueError where nothing can be compared."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for trial in report["trials"]:
        of_table = (
            trial.get("kind", "training") == "training" and trial.get("shots", report["shots"]) == report["shots"]
        )
        if of_table and trial.get("scheme") in {scheme, other} and trial.get("backbone") in {None, backbone}:
            found.setdefault(trial["target"], {}).setdefault(trial["seed"], {})[trial["scheme"]] = trial["psnr"]
    differences = {
        target: {seed: each[scheme] - each[other] for seed, each in seeds.items() if len(each) == 2}
        for target, seeds in found.items()
    }
    shared = sorted(set.intersection(*map(set, differences.values()))) if differences else []
    if not shared:
        raise ValueError(f"no seed has both {scheme} and {other} on every target")
    rows = {target: [own[seed] for seed in shared] for target, own in differences.items()}
    rows["mean of targets"] = [fmean(own[seed] for own in differences.values()) for seed in shared]
    heads = [f"{scheme} − {other} (dB)", *(f"seed {seed}" for seed in shared), "mean"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for target, values in rows.items():
        lines.append(f"| {' | '.join([target, *(f'{value:+.4f}' for value in [*values, fmean(values)])])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(compare)

"""The records of a study as tables and figures ask for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

Record = Mapping[str, Any]
Report = Mapping[str, Any]
METRICS: Final = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}
MISSING: Final = "–"
MEAN: Final = "mean of targets"


def records(report: Report, **about: Any) -> list[Record]:
    """All that have these values."""
    return [trial for trial in report["trials"] if all(trial.get(name) == value for name, value in about.items())]


def trained_in(report: Report) -> str:
    """In which arithmetic, as further words of a sentence; none of older records, which do not say."""
    arithmetics = sorted({trial["made"]["arithmetic"] for trial in report["trials"] if "made" in trial})
    return f", trained in {' and '.join(arithmetics)}" * bool(arithmetics)


def targets(report: Report) -> list[str]:
    return [record["target"] for record in records(report, kind="input")]


def the_input(report: Report, target: str) -> Record:
    (record,) = records(report, kind="input", target=target)
    return record


def shots_of(report: Report, target: str) -> int:
    """How many pairs of a target all experiments but Fig. 7 learnt from."""
    return min(int(report["shots"]), int(the_input(report, target)["train_pairs"]))


def same_seeds(cells: Sequence[list[Record]]) -> list[list[Record]]:
    """What is compared is compared over seeds that all have; a cell without any record stays empty."""
    shared = set.intersection(*([{record["seed"] for record in cell} for cell in cells if cell] or [set()]))
    return [[record for record in cell if record["seed"] in shared] for cell in cells]


def average(values: Iterable[float | None]) -> float | None:
    """None where one is missing, or all are."""
    known = list(values)
    there = [value for value in known if value is not None]
    return fmean(there) if known and len(there) == len(known) else None


def mean_of(cell: Sequence[Record], metric: str, images: Sequence[str] | None = None) -> float | None:
    """Over seeds, of all unseen images or of some."""
    if images is None:
        return average(record.get(metric) for record in cell)
    return average(average(record["images"].get(image, {}).get(metric) for image in images) for record in cell)


def number(value: float | None, metric: str = "psnr", *, signed: bool = False) -> str:
    """Two decimals for dB, four for the rest."""
    if value is None:
        return MISSING
    return f"{value:{'+' if signed else ''}.{2 if metric == 'psnr' else 4}f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)])


def over_targets(
    report: Report, row: Callable[[str], Sequence[float | None]], width: int
) -> list[tuple[str, list[float | None]]]:
    """A row of values for every target, and behind more than one the mean of them."""
    named = [(target, list(row(target))) for target in targets(report)]
    if len(named) > 1:
        named.append((MEAN, [average(values[place] for _, values in named) for place in range(width)]))
    return named


def metrics_in(cells: Iterable[Sequence[Record]]) -> list[str]:
    """LPIPS only where it was measured."""
    everything = [record for cell in cells for record in cell]
    return [metric for metric in METRICS if metric != "lpips" or any("lpips" in record for record in everything)]

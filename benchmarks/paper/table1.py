"""Table 1: backbone × scheme on unseen images, under equal steps and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.paper.records import (
    MEAN,
    Record,
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
    from benchmarks.paper.schemes import Scheme
    from benchmarks.paper.study import Study

TITLE: Final = "Table 1: backbones and schemes"
COLUMNS: Final[dict[Scheme, str]] = {
    "baseline": "Baseline",
    "pretrain": "Pre-training",
    "maml": "MAML",
    "drtl-pretrain": "DRTL (PT)",
    "drtl-maml": "DRTL (MAML)",
}
NAMES: Final = {"dncnn": "DnCNN", "vdsr-small": "VDSR (small)", "vdsr": "VDSR", "rcan": "RCAN", "rdn": "RDN"}
COMPARED: Final = (("baseline", "pretrain", "drtl-pretrain"), ("maml", "drtl-maml"))
GAINS: Final = {
    "DRTL (PT) − baseline": ("drtl-pretrain", "baseline"),
    "DRTL (PT) − pre-training": ("drtl-pretrain", "pretrain"),
    "DRTL (MAML) − MAML": ("drtl-maml", "maml"),
}


def plan(study: Study) -> list[Planned]:
    trainings = [
        study.training(backbone, scheme, target, seed)
        for backbone in study.backbones
        for seed in study.seeds
        for target in study.targets
        for scheme in study.schemes
    ]
    return [*(study.input(target) for target in study.targets), *trainings]


def cells(report: Report, target: str, backbone: str) -> dict[str, list[Record]]:
    """The records of each scheme; schemes that are compared with each other have the same seeds."""
    about = {"kind": "training", "target": target, "backbone": backbone, "shots": shots_of(report, target)}
    found: dict[str, list[Record]] = {}
    for schemes in COMPARED:
        same = same_seeds([records(report, scheme=scheme, **about) for scheme in schemes])
        found |= zip(schemes, same, strict=True)
    return {scheme: found[scheme] for scheme in COLUMNS}


def table(report: Report) -> str:
    """A table for each target, and one of their means."""
    backbones = [name for name in NAMES if records(report, kind="training", backbone=name)]
    head = ["PSNR (dB) / SSIM", *COLUMNS.values(), *GAINS, "seeds"]
    all_cells = {
        (target, backbone): cells(report, target, backbone) for target in targets(report) for backbone in backbones
    }
    values = {
        (*of, scheme, metric): mean_of(cell, metric)
        for of, row in all_cells.items()
        for scheme, cell in row.items()
        for metric in ("psnr", "ssim")
    }
    names = targets(report)
    if len(names) > 1:
        names.append(MEAN)
        for backbone in backbones:
            for scheme in COLUMNS:
                for metric in ("psnr", "ssim"):
                    own = [values[target, backbone, scheme, metric] for target in names[:-1]]
                    values[MEAN, backbone, scheme, metric] = average(own)
    parts = []
    for name in names:
        rows = []
        for backbone in backbones:
            quality: dict[str, float | None] = {scheme: values[name, backbone, scheme, "psnr"] for scheme in COLUMNS}
            shown = [
                f"{number(psnr)} / {number(values[name, backbone, scheme, 'ssim'], 'ssim')}"
                if psnr is not None
                else "–"
                for scheme, psnr in quality.items()
            ]
            cut_down = " (cut down)" * (report["cut_down"] and backbone in {"rcan", "rdn"})
            gains = [_difference(quality[one], quality[other]) for one, other in GAINS.values()]
            seeds = {
                _seeds(row)
                for (target, other), row in all_cells.items()
                if backbone == other and name in (target, MEAN)
            }
            rows.append([NAMES[backbone] + cut_down, *shown, *gains, " or ".join(sorted(seeds))])
        parts += [f"**{name}**{_about(report, name)}", markdown(head, rows)]
    return "\n\n".join(parts)


def _seeds(row: dict[str, list[Record]]) -> str:
    """How many, apart for the meta-learned schemes where these have others."""
    plain, meta = (max(len(row[scheme]) for scheme in schemes) for schemes in COMPARED)
    return f"{plain}, MAML {meta}" if 0 < plain != meta > 0 else str(plain or meta)


def _about(report: Report, name: str) -> str:
    if name not in targets(report):
        return ""
    given = the_input(report, name)
    return f" ({shots_of(report, name)} pairs; the input has {number(given['psnr'])} / {number(given['ssim'], 'ssim')})"


def _difference(one: float | None, other: float | None) -> str:
    return number(None if one is None or other is None else one - other, signed=True)

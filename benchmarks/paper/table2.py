"""Table 2: DRTL beside methods that need no pairs, all on the same unseen images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.paper.records import (
    METRICS,
    Record,
    Report,
    markdown,
    mean_of,
    metrics_in,
    number,
    over_targets,
    records,
    same_seeds,
    shots_of,
    targets,
    the_input,
)

if TYPE_CHECKING:  # Reading records needs no torch.
    from benchmarks.paper.planning import Planned
    from benchmarks.paper.study import Study

TITLE: Final = "Table 2: methods without pairs"


def plan(study: Study) -> list[Planned]:
    planned = [study.input(target) for target in study.targets]
    for target in study.targets:
        for seed in study.seeds:
            planned += [
                study.training(study.backbone, scheme, target, seed) for scheme in ("baseline", "drtl-pretrain")
            ]
        planned.append(study.deep_image_prior(target, study.seeds[0]))
        if study.real_esrgan is not None:
            planned.append(study.by_real_esrgan(target))
    return planned


def columns(report: Report, target: str) -> dict[str, list[Record]]:
    """The records of each method."""
    about = {"kind": "training", "target": target, "backbone": report["backbone"], "shots": shots_of(report, target)}
    baseline, drtl = same_seeds([records(report, scheme=scheme, **about) for scheme in ("baseline", "drtl-pretrain")])
    found = {
        "Input": [the_input(report, target)],
        "Baseline": baseline,
        "DIP": records(report, kind="dip", target=target),
    }
    if records(report, kind="real-esrgan"):
        found["Real-ESRGAN"] = records(report, kind="real-esrgan", target=target)
    return found | {"DRTL (PT)": drtl}


def restored_images(report: Report, target: str) -> list[str] | None:
    """Those that DIP has restored, on which all are compared; without DIP, all."""
    return next((list(record["images"]) for record in records(report, kind="dip", target=target)), None)


def table(report: Report) -> str:
    """A table for each metric, with a row for each target."""
    if not targets(report):
        return ""
    methods = list(columns(report, targets(report)[0]))
    measured = metrics_in(cell for target in targets(report) for cell in columns(report, target).values())
    parts = []
    for metric in measured:

        def row(target: str, metric: str = metric) -> list[float | None]:
            images = restored_images(report, target)
            return [mean_of(cell, metric, images) for cell in columns(report, target).values()]

        rows = [
            [name, *(number(value, metric) for value in values)]
            for name, values in over_targets(report, row, len(methods))
        ]
        parts.append(markdown([METRICS[metric], *methods], rows))
    counts = {target: restored_images(report, target) for target in targets(report)}
    compared = ", ".join(
        f"{target} {len(images) if images is not None else 'all'}" for target, images in counts.items()
    )
    return "\n\n".join([*parts, f"Unseen images that all columns are measured on: {compared}." + _real_esrgan(report)])


def _real_esrgan(report: Report) -> str:
    found = records(report, kind="real-esrgan")
    if not found:
        return " Real-ESRGAN's column needs its published weights: `--real-esrgan FILE`."
    return (
        f" Real-ESRGAN was given the distorted image at its size; its result, {found[0]['enlarges']} times as large, "
        "was brought back to that size by bicubic interpolation with antialiasing."
    )

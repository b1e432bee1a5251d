"""Fig. 7: what a smaller number of pairs costs the baseline, and what it costs DRTL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.paper.records import Report, markdown, mean_of, number, over_targets, records, same_seeds, targets

if TYPE_CHECKING:  # Reading records needs no torch.
    from benchmarks.paper.planning import Planned
    from benchmarks.paper.study import Study

TITLE: Final = "Fig. 7: the number of pairs"
SCHEMES: Final = {"baseline": "Baseline", "drtl-pretrain": "DRTL (PT)"}


def plan(study: Study) -> list[Planned]:
    return [
        *(study.input(target) for target in study.targets),
        *(
            study.training(study.backbone, scheme, target, seed, shots)
            for seed in study.seeds
            for target in study.targets
            for shots in study.curve_shots
            for scheme in ("baseline", "drtl-pretrain")
        ),
    ]


def curves(report: Report, target: str) -> dict[str, list[tuple[int, float]]]:
    """PSNR in dB by the number of pairs, where both schemes were measured, all over the same seeds."""
    about = {"kind": "training", "target": target, "backbone": report["backbone"]}
    numbers = sorted({record["shots"] for record in records(report, **about)})
    cells = {
        (scheme, shots): records(report, scheme=scheme, shots=shots, **about) for shots in numbers for scheme in SCHEMES
    }
    whole = [of for of in cells if all(cells[scheme, of[1]] for scheme in SCHEMES)]
    found: dict[str, list[tuple[int, float]]] = {scheme: [] for scheme in SCHEMES}
    for (scheme, shots), cell in zip(whole, same_seeds([cells[of] for of in whole]), strict=True):
        mean = mean_of(cell, "psnr")
        if mean is not None:
            found[scheme].append((shots, mean))
    return found


def is_measured(report: Report) -> bool:
    """Whether some target has more than one number of pairs, as Table 1 alone has not."""
    return any(len(curves(report, target)["baseline"]) > 1 for target in targets(report))


def table(report: Report) -> str:
    """PSNR by pairs, and what is lost from the most pairs to the fewest."""
    parts = []
    for target in targets(report):
        measured = curves(report, target)
        numbers = [shots for shots, _ in measured["baseline"]]
        if not numbers:
            continue
        head = [
            target,
            *(f"{shots} pairs" if shots != 1 else "1 pair" for shots in numbers),
            f"lost from {numbers[-1]} to {numbers[0]}",
        ]
        rows = [
            [words, *(number(psnr) for _, psnr in measured[scheme]), number(lost(measured[scheme]), signed=True)]
            for scheme, words in SCHEMES.items()
        ]
        parts.append(markdown(head, rows))

    def losses(target: str) -> list[float | None]:
        measured = curves(report, target)
        return [lost(measured[scheme]) for scheme in SCHEMES]

    rows = [
        [name, *(number(value, signed=True) for value in values)] for name, values in over_targets(report, losses, 2)
    ]
    return "\n\n".join([*parts, markdown(["lost with fewer pairs (dB)", *SCHEMES.values()], rows)])


def lost(curve: list[tuple[int, float]]) -> float | None:
    """From the most pairs to the fewest, in dB; None for a single number of pairs."""
    return curve[-1][1] - curve[0][1] if len(curve) > 1 else None

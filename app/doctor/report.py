"""Measurements and findings as the JSON that people and programs read."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from app.doctor.duplicates import alike
from app.doctor.measurements import Measurements
from app.doctor.verdict import Finding, duplicate, note, verdict_on

FINGERPRINT: Final = "fingerprint"  # Travels with a report until duplicates have been looked for.


def report_of(measured: Measurements, found: Sequence[Finding]) -> dict[str, Any]:
    """Everything about one pair, rounded to what the measurements can bear."""
    moved = measured.registration.transform
    sharpness = measured.sharpness
    return {
        "psnr_db": _rounded(measured.psnr_db, 2),
        "aligned_psnr_db": _rounded(measured.aligned_psnr_db, 2),
        "shift_px": {"x": round(moved.x, 2) + 0.0, "y": round(moved.y, 2) + 0.0},
        "rotation_deg": round(moved.rotation_deg, 3) + 0.0,
        "scale_factor": round(moved.scale, 5),
        "correlation": round(measured.registration.correlation, 4),
        "gain": [round(gain, 3) for gain in measured.colour.gain],
        "offset": [round(offset, 1) + 0.0 for offset in measured.colour.offset],
        "colour_difference": round(measured.colour.difference, 2),
        "sharpness": {
            "clean": round(sharpness.clean, 2),
            "distorted": round(sharpness.distorted, 2),
            "order": sharpness.order,
        },
        "texture": round(measured.texture, 3),
        "clipping": {side: round(share, 4) for side, share in asdict(measured.clipping).items()},
        "duplicates": [],
        FINGERPRINT: measured.fingerprint,
        **_conclusion(found),
    }


def _conclusion(found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "verdict": verdict_on(found),
        "note": note(found),
        "findings": [asdict(finding) for finding in found],
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def mark_duplicates(names: Sequence[str], reports: Sequence[dict[str, Any]]) -> None:
    """Add to each report the pairs that show the same, and take the fingerprints out."""
    for report, same in zip(reports, alike([report.pop(FINGERPRINT) for report in reports]), strict=True):
        if same and report["verdict"] != "reject":
            others = [names[place] for place in same]
            found = [Finding(**finding) for finding in report["findings"]]
            report.update(_conclusion([*found, duplicate(others)]), duplicates=others)


def summary(reports: Sequence[dict[str, Any]], *, option: str = "fix=") -> str:
    """The whole set in a sentence or two; `option` is what a fix is asked for with where these are read."""
    counts = {verdict: sum(report["verdict"] == verdict for report in reports) for verdict in VERDICTS}
    number = len(reports)
    if counts["good"] == number:
        text = "The pair is good." if number == 1 else f"All {number} pairs are good."
    else:
        said = [f"{count} {VERDICTS[verdict]}" for verdict, count in counts.items() if count]
        text = f"Of {number} pairs {_listed(said)}."
    fixes = sorted({finding["fix"] for report in reports for finding in report["findings"] if finding["fix"]})
    if fixes:
        text += f" What mends them: {option}{','.join(fixes)}."
    twice = sum(bool(report["duplicates"]) for report in reports)
    if twice:
        text += f" {twice} show the same as another."
    return text


VERDICTS: Final = {"good": "are good", "fixable": "can be mended", "reject": "cannot be trained on"}


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

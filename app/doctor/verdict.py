"""What the measurements of a pair mean for training: findings in plain sentences, and one verdict.

The thresholds are set by `benchmarks/doctor.py` on known perturbations of real pairs; docs/results.md has how often
each finding is right and how often it is missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, radians
from typing import Final, Literal

from app.doctor.measurements import Measurements

Code = Literal[
    "identical",
    "blank",
    "unrelated",
    "swapped",
    "shifted",
    "rotated",
    "scaled",
    "colour",
    "grey_clean",
    "grey_distorted",
    "little_texture",
    "clipped",
    "duplicate",
]
Severity = Literal["error", "warning", "note"]
Fix = Literal["swap", "crop", "align", "match_colour"]
Verdict = Literal["good", "fixable", "reject"]

LEAST_CORRELATION: Final = 0.75
BLANK_TEXTURE: Final = 0.02
LITTLE_TEXTURE: Final = 0.1
SHIFT_MATTERS_PX: Final = 0.5
CORNER_MATTERS_PX: Final = 1.0
COLOUR_MATTERS_LEVELS: Final = 4.0
CLIPPING_MATTERS: Final = 0.1


@dataclass(frozen=True)
class Finding:
    """Something about a pair that a person should know, and what would mend it."""

    code: Code
    severity: Severity
    sentence: str
    fix: Fix | None = None


def findings(measured: Measurements) -> list[Finding]:
    """What is to be said about one pair, the gravest first; beside some errors the other measurements mean nothing."""
    if measured.psnr_db is None:
        return [Finding("identical", "error", "The two images are equal; there is nothing to learn from them.")]
    if measured.texture < BLANK_TEXTURE:
        return [Finding("blank", "error", "The clean image shows nothing but flat ground, which teaches nothing.")]
    if measured.registration.correlation < LEAST_CORRELATION:
        sentence = "The images hardly resemble each other; do they show the same scene?"
        return [Finding("unrelated", "error", sentence)]
    return [*_swapped(measured), *_misaligned(measured), *_colours(measured), *_content(measured)]


def _swapped(measured: Measurements) -> list[Finding]:
    if measured.sharpness.order != "swapped":
        return []
    sharper = measured.sharpness.softer < 0
    worse = "softer" if sharper else "noisier"
    sentence = f"The image given as clean is the {worse} of the two; are the sides swapped?"
    return [Finding("swapped", "error", sentence, "swap")]


def _misaligned(measured: Measurements) -> list[Finding]:
    found: list[Finding] = []
    moved = measured.registration.transform
    if hypot(moved.x, moved.y) >= SHIFT_MATTERS_PX:
        horizontal = f"{abs(moved.x):.1f} px to the {'right' if moved.x > 0 else 'left'}"
        vertical = f"{abs(moved.y):.1f} px {'down' if moved.y > 0 else 'up'}"
        sentence = f"The distorted image lies {horizontal} and {vertical}; unaligned, the model learns to blur."
        found.append(Finding("shifted", "warning", sentence, "align"))
    turned = radians(abs(moved.rotation_deg)) * measured.radius
    if turned >= CORNER_MATTERS_PX:
        sentence = f"The distorted image is turned by {moved.rotation_deg:+.2f}°, {turned:.1f} px at the corners."
        found.append(Finding("rotated", "warning", sentence, "align"))
    grown = abs(moved.scale - 1) * measured.radius
    if grown >= CORNER_MATTERS_PX:
        size = "larger" if moved.scale > 1 else "smaller"
        sentence = (
            f"What the distorted image shows is {abs(moved.scale - 1):.2%} {size}, {grown:.1f} px at the corners."
        )
        found.append(Finding("scaled", "warning", sentence, "align"))
    return found


def _colours(measured: Measurements) -> list[Finding]:
    if measured.colourless == "clean":
        sentence = (
            "The clean image is grey and the distorted one has colour: nothing can be learnt about colours; "
            "send both in grey or both in colour."
        )
        return [Finding("grey_clean", "error", sentence)]
    if measured.colourless == "distorted":
        sentence = (
            "The distorted image is grey and the clean one has colour, which the model can only guess; "
            "send both in grey unless that is meant."
        )
        return [Finding("grey_distorted", "warning", sentence)]
    colour = measured.colour
    if colour.difference < COLOUR_MATTERS_LEVELS:
        return []
    mean = sum(colour.gain) / 3
    uneven = max(colour.gain) - min(colour.gain) > 0.05 or max(colour.offset) - min(colour.offset) > 5
    what = "colours" if uneven else "exposure"
    sentence = (
        f"The {what} of the two images differ by {colour.difference:.0f} of 255 levels (gain {mean:.2f}); "
        "the model would learn to change them."
    )
    return [Finding("colour", "warning", sentence, "match_colour")]


def _content(measured: Measurements) -> list[Finding]:
    found: list[Finding] = []
    if measured.texture < LITTLE_TEXTURE:
        sentence = f"Only {measured.texture:.0%} of the image shows any structure; there is little to learn from."
        found.append(Finding("little_texture", "note", sentence))
    for side, share in (("clean", measured.clipping.clean), ("distorted", measured.clipping.distorted)):
        if share >= CLIPPING_MATTERS:
            sentence = f"In the {side} image {share:.0%} of the pixels are black or white to the last level."
            found.append(Finding("clipped", "note", sentence))
    return found


def duplicate(names: Sequence[str]) -> Finding:
    """What is to be said about a pair whose clean image shows the same as those of the named pairs."""
    others = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    sentence = f"It shows the same as {others}; keep one of them, or measurements on held-out pairs flatter."
    return Finding("duplicate", "warning", sentence)


def verdict_on(found: Sequence[Finding]) -> Verdict:
    """`reject` where training would suffer from the pair, `fixable` where a fix would better it, `good` otherwise."""
    if any(finding.severity == "error" for finding in found):
        return "reject"
    return "fixable" if any(finding.fix is not None for finding in found) else "good"


def note(found: Sequence[Finding]) -> str:
    """The verdict in plain words."""
    return " ".join(finding.sentence for finding in found) or "The images are aligned and ready to train on."

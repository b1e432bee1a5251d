"""Reads the two files of a pair, has them examined and, if asked, mended. Runs where hostile files may do no harm."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.api.images import ImageFacts, facts, opened
from app.core.errors import BadImage, BadPairs, ServiceError, TooLarge, UnsupportedMedia
from app.doctor import fixes
from app.doctor.examination import examine
from app.doctor.measurements import Measurements
from app.doctor.pixels import Pixels
from app.doctor.report import FINGERPRINT, report_of
from app.doctor.verdict import Finding, Fix, findings

MEASURED_SIDE: Final = 1024  # Clean pixels; what is reported is that of the central square of at most this side.
MOST_FIXED_PIXELS: Final = 16_000_000  # Of a clean image; whole images are held in memory to mend them.
CROP_TOLERANCE: Final = 0.1  # By how much of a side two images may differ in size to be cut to one.

Side = Literal["clean", "distorted"]
Picture = NDArray[np.uint8]  # (h, w, 3)


@dataclass(frozen=True)
class PairLimits:
    """What a pair must keep to; the service's settings of the same names."""

    max_pair_pixels: int
    min_pair_side: int
    max_scale: int


@dataclass(frozen=True)
class Sizes:
    """How the two images lie on each other: the clean one is `scale` times larger, after both are cut at their rims."""

    scale: int
    width: int  # of what both show, in distorted pixels
    height: int
    clean_corner: tuple[int, int] = (0, 0)  # left, top, in clean pixels
    distorted_corner: tuple[int, int] = (0, 0)

    @property
    def cut(self) -> bool:
        return (self.clean_corner, self.distorted_corner) != ((0, 0), (0, 0))


class RefusedPair(Exception):
    """One or both files of a pair cannot be used: (side, reason, kind of error)."""

    def __init__(self, refusals: list[tuple[Side, str, type[ServiceError]]]) -> None:
        super().__init__(refusals)
        self.refusals = refusals


@dataclass(frozen=True)
class FixedPair:
    """The images that take the place of the files."""

    clean: Picture
    distorted: Picture


def examine_pair(
    clean: BinaryIO,
    distorted: BinaryIO,
    limits: PairLimits,
    allowed: Collection[Fix] = (),
    entering: Callable[[Side], None] = lambda _: None,
) -> tuple[dict[str, Any], FixedPair | None]:
    """The report on a pair, and the mended pair where an allowed fix was called for.

    Judges both headers, then their sizes against each other, then decodes one image after the other. `entering` is
    told which file is read next. Raises RefusedPair.
    """
    files: dict[Side, BinaryIO] = {"clean": clean, "distorted": distorted}

    def read_both(read: Callable[[Side], Any]) -> tuple[Any, Any]:
        found: list[Any] = []
        refused: list[tuple[Side, str, type[ServiceError]]] = []
        for side in files:
            entering(side)
            try:
                found.append(read(side))
            except (BadImage, BadPairs, TooLarge, UnsupportedMedia) as error:
                refused.append((side, error.detail, type(error)))
        if refused:
            raise RefusedPair(refused)
        return found[0], found[1]

    heads = read_both(lambda side: _head(files[side], limits))
    sizes = _sizes(*heads, limits, may_cut="crop" in allowed)
    box = _central(sizes)
    original, spoiled = read_both(lambda side: _window(files[side], side, sizes, box, limits))
    measured, found = _examined(original, spoiled, sizes.scale)
    report = {"clean": vars(heads[0]), "distorted": vars(heads[1]), "scale": sizes.scale, **report_of(measured, found)}
    chosen = fixes.wanted_by(found, allowed)
    if not chosen and not sizes.cut:
        return report, None

    if heads[0].width * heads[0].height > MOST_FIXED_PIXELS:
        reason = f"Images of more than {MOST_FIXED_PIXELS} pixels are not mended here; cut them to smaller ones first."
        raise RefusedPair([("clean", reason, TooLarge)])
    everything = (0, 0, sizes.width, sizes.height)
    whole = read_both(lambda side: _window(files[side], side, sizes, everything, limits))
    fixed = _mended(whole, chosen, measured, sizes, box)
    if min(fixed.distorted.shape[:2]) < limits.min_pair_side:
        height, width = fixed.distorted.shape[:2]
        reason = f"After mending only {width}×{height} pixels remain, of at least {limits.min_pair_side} on each side."
        raise RefusedPair([("distorted", reason, BadPairs)])
    applied: list[str] = ["crop"] if sizes.cut and "crop" not in chosen else []
    return _after(report, fixed, sizes.scale, [*applied, *chosen]), fixed


def _head(file: BinaryIO, limits: PairLimits) -> ImageFacts:
    file.seek(0)
    with opened(file, limits.max_pair_pixels) as image:
        head = facts(image)
    if min(head.width, head.height) < limits.min_pair_side:
        raise BadPairs(
            f"The image has {head.width}×{head.height} pixels; no side may be shorter than {limits.min_pair_side}."
        )
    return head


def _sizes(clean: ImageFacts, distorted: ImageFacts, limits: PairLimits, *, may_cut: bool) -> Sizes:
    """How many times larger the clean image is, 1 for equal sizes; with `may_cut`, nearly so is enough."""
    scale, rest = divmod(clean.width, distorted.width)
    sizes = (
        f"The clean image has {clean.width}×{clean.height} pixels, the distorted {distorted.width}×{distorted.height}"
    )
    nearest = max(1, round(clean.width / distorted.width))
    if not rest and (distorted.width * scale, distorted.height * scale) == (clean.width, clean.height):
        if 1 <= scale <= limits.max_scale:
            return Sizes(scale, distorted.width, distorted.height)
        reason = f"{sizes}, which is a scale of {scale}; at most {limits.max_scale} is accepted."
    elif may_cut and nearest <= limits.max_scale and _nearly(clean, distorted, nearest):
        width = min(clean.width // nearest, distorted.width)
        height = min(clean.height // nearest, distorted.height)
        clean_corner = ((clean.width - width * nearest) // 2, (clean.height - height * nearest) // 2)
        return Sizes(
            nearest, width, height, clean_corner, ((distorted.width - width) // 2, (distorted.height - height) // 2)
        )
    else:
        reason = f"{sizes}; equal sizes or one whole multiple are needed."
    raise RefusedPair([("distorted", reason, BadPairs)])


def _nearly(clean: ImageFacts, distorted: ImageFacts, scale: int) -> bool:
    return all(
        abs(one - other * scale) <= CROP_TOLERANCE * one
        for one, other in ((clean.width, distorted.width), (clean.height, distorted.height))
    )


def _central(sizes: Sizes) -> tuple[int, int, int, int]:
    """The measured window as left, top, right, bottom, in distorted pixels of what both show."""
    side = max(1, MEASURED_SIDE // sizes.scale)
    width, height = min(side, sizes.width), min(side, sizes.height)
    left, top = (sizes.width - width) // 2, (sizes.height - height) // 2
    return left, top, left + width, top + height


def _window(file: BinaryIO, side: Side, sizes: Sizes, box: tuple[int, int, int, int], limits: PairLimits) -> Picture:
    """What one image shows in `box`, which is in distorted pixels of what both show, as (h, w, 3)."""
    factor, corner = (sizes.scale, sizes.clean_corner) if side == "clean" else (1, sizes.distorted_corner)
    file.seek(0)
    with opened(file, limits.max_pair_pixels) as image:
        promised = facts(image)
        upright = ImageOps.exif_transpose(image)
        if upright.size != (promised.width, promised.height):
            raise BadImage("The orientation is noted behind the image, where few readers look for it.")
        left, top, right, bottom = (edge * factor for edge in box)
        x, y = corner
        return np.asarray(_eight_bits(upright.crop((left + x, top + y, right + x, bottom + y))))


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGB. Pillow would clip 16-bit grey instead of scaling it."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 257
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")


def _examined(clean: Picture, distorted: Picture, scale: int) -> tuple[Measurements, list[Finding]]:
    measured = examine(_pixels(clean), _pixels(_enlarged(distorted, scale)))
    found = findings(measured)
    if scale > 1:  # The larger image is the clean one, whatever it looks like.
        found = [finding for finding in found if finding.code != "swapped"]
    return measured, found


def _enlarged(image: Picture, scale: int) -> Picture:
    if scale == 1:
        return image
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC))


def _pixels(image: Picture) -> Pixels:
    return image.astype(np.float32)


def _mended(
    whole: tuple[Picture, Picture],
    chosen: list[Fix],
    measured: Measurements,
    sizes: Sizes,
    box: tuple[int, int, int, int],
) -> FixedPair:
    """The pair after the chosen fixes; `box` is where it was measured, in distorted pixels."""
    clean, distorted = whole
    moved, colour = measured.registration.transform, measured.colour
    if "swap" in chosen:
        swapped, _ = _examined(*_cut_both(distorted, clean, box), 1)
        clean, distorted = distorted, clean
        moved, colour = swapped.registration.transform, swapped.colour
    if "align" in chosen:
        centre = ((box[1] + box[3]) * sizes.scale / 2 - 0.5, (box[0] + box[2]) * sizes.scale / 2 - 0.5)
        clean, distorted = fixes.align(clean, distorted, moved, centre, sizes.scale)
    elif "crop" in chosen:
        clean, distorted = fixes.crop(clean, distorted, moved, sizes.scale)
    if "match_colour" in chosen:
        clean = fixes.match_colour(clean, colour)
    return FixedPair(clean, distorted)


def _cut_both(one: Picture, other: Picture, box: tuple[int, int, int, int]) -> tuple[Picture, Picture]:
    left, top, right, bottom = box
    return one[top:bottom, left:right], other[top:bottom, left:right]


def _after(before: dict[str, Any], fixed: FixedPair, scale: int, applied: list[str]) -> dict[str, Any]:
    """The report on the mended pair, with what was done and what was measured before."""
    height, width = fixed.distorted.shape[:2]
    box = _central(Sizes(scale, width, height))
    left, top, right, bottom = (edge * scale for edge in box)
    clean = fixed.clean[top:bottom, left:right]
    distorted = fixed.distorted[box[1] : box[3], box[0] : box[2]]
    measured, found = _examined(clean, distorted, scale)
    return {
        "clean": {"format": "PNG", "width": fixed.clean.shape[1], "height": fixed.clean.shape[0]},
        "distorted": {"format": "PNG", "width": width, "height": height},
        "scale": scale,
        **report_of(measured, found),
        "fixed": {
            "applied": applied,
            "before": {name: value for name, value in before.items() if name not in {"scale", FINGERPRINT}},
        },
    }

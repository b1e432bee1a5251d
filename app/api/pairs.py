"""Forms pairs from uploaded files, and reports on each: do the sizes fit, how strong is it distorted, is it aligned?"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.api.images import ImageFacts, facts, opened
from app.api.uploads import UploadedFile
from app.core.errors import BadImage, BadPairs, RefusedFile, ServiceError, TooLarge, UnsupportedMedia
from app.core.settings import Settings

MEASURED_SIDE: Final = 1024  # Clean pixels; PSNR and shift are those of the central square of at most this side.
SHIFT_MATTERS_PX: Final = 1.0
UNLIKE_DB: Final = 10.0  # Two unrelated photographs are about this far apart.

GREY: Final = np.full(3, 1 / 3, dtype=np.float32)

Pixels = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class FilePair:
    """A clean image with its distorted version, not yet opened."""

    name: str
    clean: UploadedFile
    distorted: UploadedFile


@dataclass(frozen=True)
class ExaminedPair:
    """A pair that can be trained on, with the report that its owner sees."""

    files: FilePair
    scale: int
    report: dict[str, Any]


def pair_up(files: Sequence[UploadedFile], settings: Settings) -> list[FilePair]:
    """Pair by file stem; by order where no stem of one side occurs on the other.

    Raises BadPairs, naming every file without a partner or with a name that is taken.
    """
    clean = [file for file in files if file.field == "clean"]
    distorted = [file for file in files if file.field == "distorted"]
    strange = [file for file in files if file.field not in {"clean", "distorted"}]
    refused = [RefusedFile(file.name, "The file is in neither `clean` nor `distorted`.") for file in strange]
    refused += [RefusedFile(file.name, reason) for file in clean + distorted if (reason := _bad_name(file.name))]
    refused += [*_twice(clean, "clean"), *_twice(distorted, "distorted")]
    if refused:
        raise BadPairs("The files cannot be paired.", pointer=refused[0].name, files=refused)

    by_stem = {_stem(file): file for file in clean}
    common = [file for file in distorted if _stem(file) in by_stem]
    if common or len(clean) != len(distorted):
        stems = {_stem(file) for file in distorted}
        alone = [RefusedFile(file.name, "It has no clean partner.") for file in distorted if file not in common]
        alone += [RefusedFile(file.name, "It has no distorted partner.") for file in clean if _stem(file) not in stems]
        if common and alone:
            raise BadPairs("Some files have no partner of the same name.", pointer=alone[0].name, files=alone)
        if alone:
            counts = f"{len(clean)} clean and {len(distorted)} distorted files"
            raise BadPairs(f"There are {counts}, and no two share a name.", pointer=alone[0].name, files=alone)
        pairs = [FilePair(_stem(file), by_stem[_stem(file)], file) for file in distorted]
    else:
        pairs = [FilePair(_stem(one), one, other) for one, other in zip(clean, distorted, strict=True)]
    if not settings.min_pairs <= len(pairs) <= settings.max_pairs:
        raise wrong_count(f"There are {len(pairs)} pairs", settings)
    return sorted(pairs, key=lambda pair: pair.name) if common else pairs


def wrong_count(found: str, settings: Settings) -> BadPairs:
    return BadPairs(f"{found}; between {settings.min_pairs} and {settings.max_pairs} are accepted.")


def _stem(file: UploadedFile) -> str:
    return PurePosixPath(file.name.replace("\\", "/")).stem


def _bad_name(name: str) -> str | None:
    if not name.isprintable() or len(name) > 255:
        return "The name has characters that cannot be printed, or more than 255 of them."
    return None


def _twice(files: Sequence[UploadedFile], side: str) -> Iterable[RefusedFile]:
    count = Counter(map(_stem, files))
    for file in files:
        if count[_stem(file)] > 1:
            yield RefusedFile(file.name, f"{count[_stem(file)]} {side} files have the name {_stem(file)!r}.")


def examine(pairs: Sequence[FilePair], settings: Settings) -> list[ExaminedPair]:
    """Decode every image once and measure every pair.

    Raises the error of the refused files where they share one, BadPairs where they differ, always naming all.
    """
    examined: list[ExaminedPair] = []
    refusals: list[tuple[RefusedFile, type[ServiceError]]] = []
    for pair in pairs:
        try:
            examined.append(_examine(pair, settings))
        except _Refused as refused:
            refusals += refused.files
    if refusals:
        kinds = {kind for _, kind in refusals}
        kind = kinds.pop() if len(kinds) == 1 else BadPairs
        files = [file for file, _ in refusals]
        said = f"{files[0].name}: {files[0].reason}" if len(files) == 1 else f"{len(files)} files cannot be used."
        raise kind(said, pointer=files[0].name, files=files)

    common = Counter(pair.scale for pair in examined).most_common(1)[0][0]
    others = [pair for pair in examined if pair.scale != common]
    if others:
        files = [
            RefusedFile(pair.files.distorted.name, f"Its scale is {pair.scale}, that of most others {common}.")
            for pair in others
        ]
        raise BadPairs("All pairs of a dataset must have the same scale.", pointer=files[0].name, files=files)
    return examined


class _Refused(Exception):
    """One or both files of a pair cannot be used."""

    def __init__(self, files: Sequence[tuple[RefusedFile, type[ServiceError]]]) -> None:
        super().__init__(files)
        self.files = files


def _examine(pair: FilePair, settings: Settings) -> ExaminedPair:
    """Judge both headers, then their sizes against each other, then decode one image after the other."""
    clean, distorted = _both(pair, lambda file: _head(file, settings))
    scale = _scale(pair, clean, distorted, settings)
    side = max(1, MEASURED_SIDE // scale)
    width, height = min(side, distorted.width), min(side, distorted.height)
    left, top = (distorted.width - width) // 2, (distorted.height - height) // 2
    window = (left, top, left + width, top + height)  # in distorted pixels

    def pixels(file: UploadedFile) -> Pixels:
        return _pixels(file, window, 1, settings) if file is pair.distorted else _pixels(file, window, scale, settings)

    original, spoiled = _both(pair, pixels)
    if scale > 1:
        small = Image.fromarray(spoiled.astype(np.uint8))
        enlarged = small.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
        spoiled = np.asarray(enlarged, dtype=np.float32)
    report = {"clean": vars(clean), "distorted": vars(distorted), "scale": scale, **measure(original, spoiled)}
    return ExaminedPair(pair, scale, report)


def _both(pair: FilePair, read: Callable[[UploadedFile], T]) -> tuple[T, T]:
    """What `read` finds in the clean and in the distorted file. Raises _Refused, naming the one or both it refuses."""
    found: list[T] = []
    refused: list[tuple[RefusedFile, type[ServiceError]]] = []
    for file in (pair.clean, pair.distorted):
        try:
            found.append(read(file))
        except (BadImage, BadPairs, TooLarge, UnsupportedMedia) as error:
            refused.append((RefusedFile(file.name, error.detail), type(error)))
    if refused:
        raise _Refused(refused)
    clean, distorted = found
    return clean, distorted


def _head(file: UploadedFile, settings: Settings) -> ImageFacts:
    with file.open() as stream, opened(stream, settings.max_pair_pixels) as image:
        head = facts(image)
    if min(head.width, head.height) < settings.min_pair_side:
        raise BadPairs(
            f"The image has {head.width}×{head.height} pixels; no side may be shorter than {settings.min_pair_side}."
        )
    return head


def _scale(pair: FilePair, clean: ImageFacts, distorted: ImageFacts, settings: Settings) -> int:
    """How many times larger the clean image is; 1 for equal sizes."""
    scale, rest = divmod(clean.width, distorted.width)
    sizes = (
        f"The clean image has {clean.width}×{clean.height} pixels, the distorted {distorted.width}×{distorted.height}"
    )
    if rest or (distorted.width * scale, distorted.height * scale) != (clean.width, clean.height):
        reason = f"{sizes}; equal sizes or one whole multiple are needed."
    elif not 1 <= scale <= settings.max_scale:
        reason = f"{sizes}, which is a scale of {scale}; at most {settings.max_scale} is accepted."
    else:
        return scale
    raise _Refused([(RefusedFile(pair.distorted.name, reason), BadPairs)])


def _pixels(file: UploadedFile, box: tuple[int, int, int, int], scale: int, settings: Settings) -> Pixels:
    """What lies in `scale` times `box` (left, top, right, bottom), as (h, w, 3) in [0, 255]."""
    with file.open() as stream, opened(stream, settings.max_pair_pixels) as image:
        promised = facts(image)
        upright = ImageOps.exif_transpose(image)
        if upright.size != (promised.width, promised.height):
            raise BadImage("The orientation is noted behind the image, where few readers look for it.")
        window = upright.crop((box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale))
        return np.asarray(_eight_bits(window), dtype=np.float32)


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGB. Pillow would clip 16-bit grey instead of scaling it."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 257
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")


def measure(clean: Pixels, distorted: Pixels) -> dict[str, Any]:
    """PSNR in dB (None for equal images), shift in clean pixels, and what they mean for training.

    Both images are (h, w, 3) in [0, 255].
    """
    error = float(np.mean((clean - distorted) ** 2))
    if error == 0:
        note = "The two images are equal; there is nothing to learn from them."
        return {"psnr_db": None, "shift_px": {"x": 0, "y": 0}, "verdict": "identical", "note": note}
    psnr_db = round(10 * float(np.log10(255**2 / error)), 2)
    x, y = shift_between(clean @ GREY, distorted @ GREY)
    if psnr_db < UNLIKE_DB:
        verdict, note = "unlike", "The images hardly resemble each other; do they show the same scene?"
    elif max(abs(x), abs(y)) > SHIFT_MATTERS_PX:
        verdict, note = "shifted", "The images are not aligned; align them, or the model learns to blur."
    else:
        verdict, note = "good", "The images are aligned."
    return {"psnr_db": psnr_db, "shift_px": {"x": x, "y": y}, "verdict": verdict, "note": note}


def shift_between(clean: Pixels, distorted: Pixels) -> tuple[int, int]:
    """By how many pixels (x to the right, y down) the distorted grey image (h, w) lies off, by phase correlation.

    Noise can put the correlation's peak anywhere, so a shift counts only if undoing it brings the images closer.
    """
    height, width = clean.shape
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)  # (h, w), against the edges' cross
    spectrum = np.fft.rfft2((distorted - distorted.mean()) * window)  # (h, w / 2 + 1)
    spectrum *= np.conj(np.fft.rfft2((clean - clean.mean()) * window))
    spectrum /= np.abs(spectrum) + 1e-6
    correlation = np.fft.irfft2(spectrum, s=clean.shape)  # (h, w)
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    y, x = (int(at) - size if at > size // 2 else int(at) for at, size in zip(peak, clean.shape, strict=True))
    if max(abs(x), abs(y)) > min(height, width) // 4:
        return 0, 0
    moved = np.roll(distorted, (-y, -x), axis=(0, 1))
    inner = (slice(abs(y), height - abs(y)), slice(abs(x), width - abs(x)))
    as_is, undone = (float(np.mean((image[inner] - clean[inner]) ** 2)) for image in (distorted, moved))
    return (x, y) if undone < as_is else (0, 0)

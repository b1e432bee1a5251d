"""How close an image's distortion is to what a model was trained on, from the image alone."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ml.descriptor import SHORTEST_SIDE, VALUES, Descriptor, describe_each
from ml.images import from_uint8
from ml.windows import MOST, windows_of

VERSION: Final = 1  # of the descriptor; references of another version are not compared with
LEAST_SPREAD: Final = 0.1  # decades, the spread that is assumed of every value before any window is seen,
PRIOR_WINDOWS: Final = 20  # and with how many windows that assumption counts
CLOSE: Final = 0.05  # the least score that is called close
TELLING: Final = 1e-3  # the least typical distance of training images that differ at all
NEAR: Final = 1.5  # times the farthest training image
QUANTILES: Final = 33  # kept of each distribution of distances
LARGEST: Final = 1e9  # of a reference's numbers, far beyond any; their squares and products stay finite
GROUPS: Final = (1, 2, 4, 8, MOST)  # windows of an image; the fewer there are, the farther their mean strays

Word = Literal["close", "near", "far"]


@dataclass(frozen=True)
class MatchReference:
    """What a model card keeps of the distorted training images: a Gaussian over descriptors, and how far its own lie.

    `whitening` is the lower triangle, row by row, of the matrix that brings a deviation from `mean` to unit
    covariance. `distances` holds, for every group size in windows, ascending quantiles of the distances at which the
    training images lie from a Gaussian that was fitted without them.
    """

    version: int
    windows: int
    mean: list[float]
    whitening: list[float]
    distances: dict[str, list[float]]


@dataclass(frozen=True)
class Match:
    """How close an image is to a model's training images.

    `score` is the share, 0…1, of the model's own training images that lie at least as far from their common centre,
    each judged as if the model had not seen it: about one half for an image of the same device, 0 for one that is
    farther than all. `distance`, in units of the spread of their windows, goes on where the score has reached 0.
    """

    score: float
    distance: float
    word: Word
    sentence: str


def fingerprint(
    images: Sequence[UInt8[Tensor, "3 _ _"]], tick: Callable[[], None] = lambda: None
) -> MatchReference | None:
    """The reference of a model that was trained on these distorted images, at the size at which they are sent in.

    None where there are fewer than two windows, or all are alike, as those of one image sent in twice: nothing then
    says how far an image of the same kind may lie.
    Calls `tick` before each image.
    """
    of_image = []  # (n, 25) each
    for image in images:
        tick()
        if min(image.shape[1:]) >= SHORTEST_SIDE:
            of_image.append(describe_each(windows_of(from_uint8(image))).double())
    if not of_image or sum(map(len, of_image)) < 2:
        return None
    # One image alone is judged by its own windows.
    parts = of_image if len(of_image) > 1 else list(of_image[0].split(1))
    strays: dict[int, list[Tensor]] = {size: [] for size in GROUPS}
    for left_out, part in enumerate(parts):
        others = Gaussian.fitted(torch.cat([each for index, each in enumerate(parts) if index != left_out]))
        for size in GROUPS:
            count = max(1, len(part) // size)
            # Every count-th window: the windows of a small image are as different from each other.
            means = torch.stack([part[start::count].mean(dim=0) for start in range(count)])  # (g, 25)
            strays[size].append(others.distance(means))
    levels = torch.linspace(0, 1, QUANTILES, dtype=torch.double)
    whole = Gaussian.fitted(torch.cat(of_image))
    row, column = torch.tril_indices(VALUES, VALUES)
    reference = MatchReference(
        VERSION,
        sum(map(len, of_image)),
        _rounded(whole.mean),
        _rounded(whole.whitening[row, column]),
        {str(size): _rounded(torch.cat(strays[size]).quantile(levels)) for size in GROUPS},
    )
    return reference if _tells(reference) else None


def _tells(reference: MatchReference) -> bool:
    return all(statistics.median(distances) >= TELLING for distances in reference.distances.values())


def reference_in(card: Mapping[str, Any]) -> MatchReference | None:
    """The reference in a model card. None where it has none, one that tells nothing, or one of another version.

    Raises ValueError for what `closeness` could not work with: a card may come from anywhere.
    """
    stored = card.get("match")
    if stored is None:
        return None
    if not isinstance(stored, dict) or type(stored.get("version")) is not int:  # JSON's true would be an int, too.
        raise ValueError("its card's match has no version")
    if stored["version"] != VERSION:
        return None
    reference = _judged(stored)
    return reference if _tells(reference) else None


def _judged(stored: dict[str, Any]) -> MatchReference:
    """A reference of this version, every number in its place. Raises ValueError."""
    if stored.keys() != {member.name for member in fields(MatchReference)}:
        raise ValueError(f"its card's match has the members {sorted(stored)}")
    windows, distances = stored["windows"], stored["distances"]
    if type(windows) is not int or windows < 1:
        raise ValueError(f"its card's match is of {windows!r} windows")
    for name, count in (("mean", VALUES), ("whitening", VALUES * (VALUES + 1) // 2)):
        if not _are_numbers(stored[name], count):
            raise ValueError(f"its card's match has a {name} that is not {count} numbers")
    if not isinstance(distances, dict) or distances.keys() != {str(size) for size in GROUPS}:
        raise ValueError(f"its card's match has no distances for groups of {GROUPS}")
    for size, ascending in distances.items():
        if not _are_numbers(ascending, QUANTILES) or ascending[0] < 0 or ascending != sorted(ascending):
            raise ValueError(f"its card's match has distances for groups of {size} that are no {QUANTILES} quantiles")
    return MatchReference(**stored)


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(type(value) in {int, float} and abs(value) <= LARGEST for value in values)  # Nor NaN.


def closeness(reference: MatchReference, descriptor: Descriptor) -> Match:
    """Compare an image with a model's training images; the fewer its windows, the more leave it has to stray."""
    distance = float(_gaussian(reference).distance(descriptor.values.double()[None]))
    size = max((size for size in GROUPS if size <= descriptor.windows), default=1)
    own = torch.tensor(reference.distances[str(size)], dtype=torch.double)  # (q,) ascending
    score = _share_beyond(own, distance)
    farthest, typical = float(own[-1]), float(own.median())
    word: Word = "close" if score >= CLOSE else "near" if distance <= NEAR * farthest else "far"
    return Match(score, distance, word, _sentence(word, distance / typical))


def nearest(references: Mapping[str, MatchReference], descriptor: Descriptor) -> list[tuple[str, Match]]:
    """All models, the one whose training images the image is most like first.

    By distance: scores of several models may all be 0, and are coarse where there were few pairs.
    """
    matches = {name: closeness(reference, descriptor) for name, reference in references.items()}
    return sorted(matches.items(), key=lambda item: item[1].distance)


@dataclass(frozen=True)
class Gaussian:
    """Mean and spread of descriptors."""

    mean: Float[Tensor, "25"]
    whitening: Float[Tensor, "25 25"]  # lower triangular

    @classmethod
    def fitted(cls, values: Float[Tensor, "n 25"]) -> "Gaussian":
        """The covariance is drawn towards a small round one, as if that had been seen in some windows before.

        So two images are enough, and a value that never varies, as colour in grey images, still has some room.
        """
        mean = values.mean(dim=0)
        deviation = values - mean  # (n, 25)
        seen = deviation.T @ deviation  # (25, 25)
        assumed = PRIOR_WINDOWS * LEAST_SPREAD**2 * torch.eye(VALUES, dtype=values.dtype)
        factor = torch.linalg.cholesky((assumed + seen) / (PRIOR_WINDOWS + len(values) - 1))
        return cls(mean, torch.linalg.inv(factor))

    def distance(self, values: Float[Tensor, "m 25"]) -> Float[Tensor, "m"]:
        """Root mean square of the deviation, each direction in units of its own spread (Mahalanobis)."""
        return ((values - self.mean) @ self.whitening.T).square().mean(dim=1).sqrt()


def _gaussian(reference: MatchReference) -> Gaussian:
    whitening = torch.zeros(VALUES, VALUES, dtype=torch.double)
    row, column = torch.tril_indices(VALUES, VALUES)
    whitening[row, column] = torch.tensor(reference.whitening, dtype=torch.double)
    return Gaussian(torch.tensor(reference.mean, dtype=torch.double), whitening)


def _share_beyond(ascending: Float[Tensor, "q"], value: float) -> float:
    """The share of a distribution, given by evenly spaced quantiles, that is at least `value`."""
    if value <= float(ascending[0]):
        return 1.0
    if value > float(ascending[-1]):
        return 0.0
    above = int(torch.searchsorted(ascending, value))  # ascending[above − 1] < value ≤ ascending[above]
    low, high = float(ascending[above - 1]), float(ascending[above])
    return 1 - (above - 1 + (value - low) / (high - low)) / (len(ascending) - 1)


def _sentence(word: Word, distance: float) -> str:
    times = f"{distance:.1f} times as far from their centre as they typically are"
    match word:
        case "close":
            return f"The image is distorted like those that the model was trained on ({times})."
        case "near":
            return f"The image is distorted somewhat unlike those that the model was trained on ({times})."
        case "far":
            return f"The image is distorted unlike those that the model was trained on ({times}): do not rely on it."


def _rounded(values: Tensor) -> list[float]:
    """Six digits are more than the estimate deserves, and keep the card small."""
    return [float(f"{value:.6g}") for value in values.tolist()]

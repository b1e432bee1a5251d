"""A defined local window for networks that pool over the whole image, so that tiles and whole images agree.

No overlap of tiles can reproduce a mean over the whole image. So the image is divided into cores on a grid that starts
at its upper left corner; every core is computed from itself and a margin around it, cut off at the image's borders, as
if this window were the image. What a core becomes depends on nothing else, however the image is divided into tiles.
The statistics are then those of an area near that of a training crop, which is what the network has learned to read
(Chu et al., "Improving image restoration by revisiting global information aggregation", ECCV 2022, arXiv:2112.04491,
replace the pooling by a sliding one for this reason; that one would see across all of its layers together).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

BATCH_PIXELS: Final = 2**17  # Windows of one size go through the network together, up to so many pixels.


@dataclass(frozen=True)
class Window:
    """A grid of cores of `core` × `core` pixels, each seen with `margin` pixels around it."""

    core: int
    margin: int


@dataclass(frozen=True)
class Part:
    """A rectangle of an image, in pixels; `bottom` and `right` are the first ones outside."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def in_windows(
    compute: Callable[[Float[Tensor, "n 3 _ _"]], Float[Tensor, "n 3 _ _"]],
    image: Float[Tensor, "b 3 h w"],
    part: Part,
    window: Window,
) -> Float[Tensor, "b 3 {part.height} {part.width}"]:
    """The same-size `compute`, applied to each window whose core touches `part` of the image."""
    height, width = image.shape[-2:]
    by_size: dict[tuple[int, int], list[tuple[Part, Part]]] = defaultdict(list)
    for core in _cores(height, width, part, window.core):
        seen = Part(
            max(0, core.top - window.margin),
            min(height, core.bottom + window.margin),
            max(0, core.left - window.margin),
            min(width, core.right + window.margin),
        )
        by_size[seen.height, seen.width].append((core, seen))
    restored = image.new_empty(len(image), 3, part.height, part.width)
    for (seen_height, seen_width), windows in by_size.items():
        at_once = max(1, BATCH_PIXELS // (len(image) * seen_height * seen_width))
        for first in range(0, len(windows), at_once):
            batch = windows[first : first + at_once]
            results = compute(torch.cat([_cut(image, seen) for _, seen in batch])).split(len(image))
            for (core, seen), result in zip(batch, results, strict=True):
                kept = _common(core, part)
                _cut(restored, _relative(kept, part)).copy_(_cut(result, _relative(kept, seen)))
    return restored


def _cores(height: int, width: int, part: Part, side: int) -> list[Part]:
    return [
        Part(top, min(height, top + side), left, min(width, left + side))
        for top in range(part.top // side * side, part.bottom, side)
        for left in range(part.left // side * side, part.right, side)
    ]


def _common(one: Part, other: Part) -> Part:
    return Part(
        max(one.top, other.top), min(one.bottom, other.bottom), max(one.left, other.left), min(one.right, other.right)
    )


def _relative(part: Part, to: Part) -> Part:
    return Part(part.top - to.top, part.bottom - to.top, part.left - to.left, part.right - to.left)


def _cut(image: Float[Tensor, "b 3 h w"], part: Part) -> Float[Tensor, "b 3 {part.height} {part.width}"]:
    return image[..., part.top : part.bottom, part.left : part.right]

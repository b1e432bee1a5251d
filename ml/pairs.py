"""The few-shot pairs of a target: decoded, brought to one size, divided into those to train and those to measure on."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ml.distortions.resampling import resize
from ml.images import Picture, decode, from_uint8, to_uint8
from ml.placement import has_room_for
from ml.sampling import generator_for

FEWEST_PAIRS_TO_HOLD_OUT = 4
HELD_OUT_SHARE = 0.2
LARGEST_SCALE = 4
SHORTEST_SIDE = 48  # of clean images; less leaves too little to embed, and nothing to measure on in a strip of it
MEASURED_SIDE = 1024  # Held-out images are measured on a central window no larger, which bounds the time it takes.


@dataclass(frozen=True)
class PairFile:
    """A pair as uploaded: two encoded images."""

    name: str
    clean: bytes
    distorted: bytes


@dataclass(frozen=True)
class TargetPair:
    """A clean image with its distorted version at equal size, kept in 8 bits to save memory.

    `grey` where the distorted file has one channel, and a restored one will have one too.
    """

    name: str
    clean: UInt8[Tensor, "3 h w"]
    distorted: UInt8[Tensor, "3 h w"]
    grey: bool = False

    def to(self, device: torch.device) -> "TargetPair":
        return replace(self, clean=self.clean.to(device), distorted=self.distorted.to(device))

    def part(self, *window: slice) -> "TargetPair":
        """The same window (rows, columns) of both images."""
        return replace(self, clean=self.clean[:, *window], distorted=self.distorted[:, *window])


@dataclass(frozen=True)
class Split:
    """What may be trained on and what is only measured on."""

    protocol: Literal["pairs", "halves"]
    train: list[TargetPair]
    held_out: list[TargetPair]


def pairs_at_hand(on: torch.device, pairs: Sequence[TargetPair]) -> list[TargetPair]:
    """Pairs where crops of them are made fastest, as `at_hand` has images."""
    size = sum(pair.clean.nbytes + pair.distorted.nbytes for pair in pairs)
    return [pair.to(on) for pair in pairs] if has_room_for(on, size) else [*pairs]


def enlarge(image: UInt8[Tensor, "3 h w"], scale: int) -> UInt8[Tensor, "3 h2 w2"]:
    """Bicubic enlargement, the starting point where clean images are larger than distorted ones."""
    if scale == 1:
        return image
    return to_uint8(resize(from_uint8(image), image.shape[1] * scale, image.shape[2] * scale))


def decode_pairs(files: Sequence[PairFile], tick: Callable[[], None] = lambda: None) -> tuple[list[TargetPair], int]:
    """Decode the pairs and enlarge the distorted images to their clean size. Returns the pairs and the scale.

    Calls `tick` before each pair.

    What either image hides below full transparency is alike in both.

    Raises ValueError naming the pair that is no image, too small, or whose clean size is no multiple of the other.
    """
    pairs, scales = [], set()
    for file in files:
        tick()
        try:
            original, picture = decode(file.clean), decode(file.distorted)
        except ValueError as error:
            raise ValueError(f"pairs: {file.name}: {error}") from error
        clean, distorted = to_uint8(original.pixels), to_uint8(picture.pixels)
        scale = max(1, clean.shape[1] // distorted.shape[1])
        if clean.shape[1:] != (distorted.shape[1] * scale, distorted.shape[2] * scale):
            sizes = f"{tuple(clean.shape[1:])} and {tuple(distorted.shape[1:])}"
            raise ValueError(f"pairs: {file.name} has sizes {sizes}; the first is no whole multiple of the second")
        if scale > LARGEST_SCALE:
            raise ValueError(f"pairs: {file.name} has a scale of {scale}, of at most {LARGEST_SCALE}")
        if min(clean.shape[1:]) < SHORTEST_SIDE:
            raise ValueError(f"pairs: {file.name} is smaller than {SHORTEST_SIDE} pixels: {tuple(clean.shape[1:])}")
        hidden = _hidden(original, 1) | _hidden(picture, scale)
        distorted = torch.where(hidden, clean, enlarge(distorted, scale))
        pairs.append(TargetPair(file.name, clean, distorted, picture.grey))
        scales.add(scale)
    if len(scales) != 1:
        raise ValueError(f"pairs: scales differ between pairs: {sorted(scales)}")
    return pairs, scales.pop()


def _hidden(picture: Picture, scale: int) -> Bool[Tensor, "1 _ _"]:
    """Where the picture, enlarged, shows nothing; one value for all of it where it has no alpha.

    Its colours there are arbitrary: nobody sees them, and nothing is to be learnt from them.
    """
    if picture.alpha is None:
        return torch.zeros(1, 1, 1, dtype=torch.bool)
    hidden = picture.alpha == 0
    return hidden.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def as_sent(files: Sequence[PairFile], train: Sequence[TargetPair], scale: int) -> list[UInt8[Tensor, "3 _ _"]]:
    """The distorted images of training pairs at the size of their files, as images will be sent to the model."""
    if scale == 1:
        return [pair.distorted for pair in train]
    file_of = {file.name: file for file in files}
    images = []
    for pair in train:
        height, width = pair.distorted.shape[1] // scale, pair.distorted.shape[2] // scale  # of a strip where it is one
        images.append(to_uint8(decode(file_of[pair.name].distorted).pixels[:, :height, :width]))
    return images


def digest(files: Sequence[PairFile]) -> str:
    """SHA-256, in hex, over the names and bytes of the pairs in their order."""
    whole = hashlib.sha256()
    for file in files:
        for part in (file.name.encode(), file.clean, file.distorted):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def split(pairs: Sequence[TargetPair], seed: int) -> Split:
    """Hold out a fifth of the pairs, at least one, or of fewer than four pairs a strip at the right of each.

    Between a strip and the part that is trained on lies a gap of 1/16 of the width, so that neighbouring pixels do not
    tell the answer.
    """
    if len(pairs) >= FEWEST_PAIRS_TO_HOLD_OUT:
        order = torch.randperm(len(pairs), generator=generator_for(seed, "split", 0)).tolist()
        held_out = sorted(order[: max(1, round(HELD_OUT_SHARE * len(pairs)))])
        train = [pair for index, pair in enumerate(pairs) if index not in held_out]
        return Split("pairs", train, [_central(pairs[index]) for index in held_out])
    train, measured = [], []
    for pair in pairs:
        width = pair.clean.shape[2]
        end, start = width * 10 // 16, width * 11 // 16
        train.append(pair.part(slice(None), slice(end)))
        measured.append(_central(pair.part(slice(None), slice(start, None))))
    return Split("halves", train, measured)


def _central(pair: TargetPair) -> TargetPair:
    height, width = pair.clean.shape[1:]
    top, left = max(0, height - MEASURED_SIDE) // 2, max(0, width - MEASURED_SIDE) // 2
    return pair.part(slice(top, top + MEASURED_SIDE), slice(left, left + MEASURED_SIDE))

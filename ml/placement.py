"""Where tensors lie: near the network, and brought there without waiting.

A copy to an accelerator makes the CPU wait for all that was asked of it before, unless `non_blocking` says otherwise;
from memory that is not pinned, too, the source may be forgotten at once.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

V = TypeVar("V", float, str)
MOST_AT_HAND: Final = 1 / 4  # Of an accelerator's free memory for images: networks and their features need the rest.


def at_hand(on: torch.device, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[UInt8[Tensor, "3 _ _"]]:
    """Images where crops of them are made fastest: on the device, or where they are if they take too much of it."""
    return [image.to(on) for image in images] if has_room_for(on, sum(image.nbytes for image in images)) else [*images]


def has_room_for(on: torch.device, size: int) -> bool:
    """Whether so many bytes are no more than `MOST_AT_HAND` of what is free on a device; the CPU has them anyway."""
    return on.type != "cuda" or size <= MOST_AT_HAND * torch.cuda.mem_get_info(on)[0]


def like(other: Tensor, tensor: Tensor) -> Tensor:
    """A tensor on the device and in the type of another, brought there without waiting for the device."""
    return tensor.to(other, non_blocking=True)


def by_value(values: Sequence[V]) -> Iterator[tuple[V, list[int]]]:
    """Each different value, in order, with the places in a batch that have it."""
    for value in sorted(set(values)):
        yield value, [place for place, other in enumerate(values) if other == value]


def places(of: Sequence[int], near: Tensor) -> Int64[Tensor, "n"]:
    """Places in a batch as an index on the batch's device: a list would be waited for."""
    return torch.tensor(of, dtype=torch.int64).to(near.device, non_blocking=True)

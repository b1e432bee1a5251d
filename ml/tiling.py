"""Runs a network over an image of any size, in tiles whose overlap hides their borders."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ml.backbones import SameSize
from ml.precision import autocast

TILE = 768  # Side of the part of a tile that is kept; a whole image up to this size is one tile.


@dataclass(frozen=True)
class Tile:
    """Where one tile is read, with its surroundings, and which part of its result is kept; in pixels."""

    top: int
    bottom: int
    left: int
    right: int
    read_top: int
    read_bottom: int
    read_left: int
    read_right: int


def tiles(height: int, width: int, side: int, overlap: int, align: int) -> list[Tile]:
    """Cover an image with tiles that are read `overlap` pixels further on every side that has an image there.

    Reading starts at multiples of `align`, so that a pixel-unshuffling network groups the same pixels as in the whole
    image; `side` is rounded up to such a multiple.
    """
    side += -side % align
    overlap += -overlap % align
    return [
        Tile(
            top,
            min(height, top + side),
            left,
            min(width, left + side),
            max(0, top - overlap),
            min(height, top + side + overlap),
            max(0, left - overlap),
            min(width, left + side + overlap),
        )
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def restore_tiled(
    network: SameSize,
    image: Float[Tensor, "3 h w"],
    *,
    side: int = TILE,
    after_tile: Callable[[], None] = lambda: None,
) -> Float[Tensor, "3 h w"]:
    """The network's output for the whole image, equal to the untiled one up to rounding of the arithmetic.

    The overlap is the network's receptive radius, so no kept pixel depends on anything beyond its tile. `after_tile`
    may raise to stop.
    """
    on = next(network.parameters()).device
    restored = torch.empty_like(image)
    for tile in tiles(image.shape[1], image.shape[2], side, network.radius, network.align):
        part = image[:, tile.read_top : tile.read_bottom, tile.read_left : tile.read_right]
        part = part[None].to(on, memory_format=torch.channels_last)  # (1, 3, th, tw)
        with torch.inference_mode(), autocast(on):
            result = network(part)[0].float().cpu()  # (3, th, tw)
        top, left = tile.top - tile.read_top, tile.left - tile.read_left
        height, width = tile.bottom - tile.top, tile.right - tile.left
        restored[:, tile.top : tile.bottom, tile.left : tile.right] = result[:, top : top + height, left : left + width]
        after_tile()
    return restored

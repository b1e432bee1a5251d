"""Divides an image into tiles that need nothing beyond what they read, and restores it band by band as its rows arrive.

What a tile reads around itself is the network's receptive radius, so the result is that of the whole image at once, up
to the rounding of the arithmetic. Memory holds one band of tiles, however long the image is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ml.backbones import Part, SameSize
from ml.precision import compute, fastest

Rows = NDArray[np.uint8] | NDArray[np.uint16]

TILE: Final = 384  # Side of the kept part: features stay in the caches, and a cancelled image stops within a second.
WIDE_TILE: Final = 1024  # For networks that see far: the wider the tile, the smaller the share that is computed twice.
FAR_RADIUS: Final = 64
SMALLEST_TILE: Final = 32


@dataclass(frozen=True)
class Span:
    """One side of a tile: the pixels that are kept, and those that are read for them."""

    start: int
    stop: int
    read_start: int
    read_stop: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """What two tiles must share to go through a network together: what is read, what is kept of it."""
        return self.start - self.read_start, self.stop - self.start, self.read_stop - self.read_start


@dataclass(frozen=True)
class Grid:
    """Tiles of `side` pixels that start at multiples of `align` and see `radius` pixels further.

    `align` keeps the cells of a pixel-unshuffle and the windows of a network together; `side` is rounded up to it.
    """

    side: int
    radius: int
    align: int

    def spans(self, start: int, stop: int, length: int) -> list[Span]:
        """Cover `start`…`stop` of an image's side of `length` pixels; `start` is a multiple of `align`."""
        side = self.side + -self.side % self.align
        beyond = self.radius + -self.radius % self.align
        return [
            Span(at, min(stop, at + side), max(0, at - beyond), min(length, min(stop, at + side) + beyond))
            for at in range(start, stop, side)
        ]

    def halved(self) -> "Grid | None":
        """A grid that needs about a quarter of the memory; None where a tile is as small as may be."""
        side = self.side // 2
        return replace(self, side=side) if side >= max(self.align, SMALLEST_TILE) else None


def grid_for(radius: int, align: int) -> Grid:
    """The grid that suits a network of this geometry."""
    return Grid(TILE if radius <= FAR_RADIUS else WIDE_TILE, radius, align)


class RowBuffer:
    """The rows of an image that tiles may still need. Each is read once, from the top."""

    def __init__(self, read_rows: Callable[[int], Rows]) -> None:
        self._read_rows = read_rows
        self._rows: Rows | None = None
        self._top = 0  # Where in the image the buffer begins.

    def window(self, top: int, bottom: int) -> Rows:
        """Rows `top`…`bottom` as (rows, width, channels); never again any above `top`."""
        if self._rows is None:
            self._rows = self._read_rows(bottom)
        elif (missing := bottom - self._top - len(self._rows)) > 0:
            self._rows = np.concatenate([self._rows[top - self._top :], self._read_rows(missing)])
            self._top = top
        return self._rows[top - self._top : bottom - self._top]


@dataclass(frozen=True)
class Piece:
    """A restored part of an image, with the spread of an ensemble's results where there was one.

    `fallback_tiles` of its tiles had to be computed again in float32.
    """

    rows: Rows  # (rows, width, channels)
    spread: NDArray[np.uint8] | None = None  # (rows, width, 1)
    fallback_tiles: int = 0


@dataclass(frozen=True)
class Band(Piece):
    """A piece of the image's full width: of how many tiles it is, and how long their sides were at most."""

    tiles: int = 1
    side: int = TILE


# Restores the tiles of one band that share a shape: (the image's rows, the band, the tiles' columns) → their pieces.
RestoreTiles = Callable[[RowBuffer, Span, list[Span]], list[Piece]]


class OutOfMemory(Exception):
    """Memory did not suffice for a tile."""


def restore_bands(
    rows: RowBuffer,
    size: tuple[int, int],
    grid: Grid,
    restore_tiles: RestoreTiles,
    *,
    at_once: int = 1,
    after_tiles: Callable[[float], None] = lambda done: None,
) -> Iterator[Band]:
    """Restore an image of `size` (height, width) from top to bottom; yields bands of its full width.

    Up to `at_once` tiles go through the network together. Where that raises OutOfMemory, tiles halve and the image goes
    on; with the smallest tiles it is raised. `after_tiles` hears the share that is done, 0…1, and may raise to stop.
    """
    height, width = size
    top = 0
    while top < height:
        band = grid.spans(top, height, height)[0]
        pieces: list[Piece] = []
        try:
            for columns in _alike(grid.spans(0, width, width), at_once):
                pieces += restore_tiles(rows, band, columns)
                after_tiles((top + (band.stop - top) * columns[-1].stop / width) / height)
        except OutOfMemory:
            smaller, at_once = (grid, 1) if at_once > 1 else (grid.halved(), 1)
            if smaller is None:
                raise
            grid = smaller
            continue
        yield _side_by_side(pieces, grid.side)
        top = band.stop


def _alike(spans: list[Span], at_once: int) -> Iterator[list[Span]]:
    """The spans in order, neighbours of one shape together, at most `at_once` of them."""
    for _, group in groupby(spans, key=lambda span: span.shape):
        alike = list(group)
        for first in range(0, len(alike), at_once):
            yield alike[first : first + at_once]


def _side_by_side(pieces: list[Piece], side: int) -> Band:
    fallback_tiles = sum(piece.fallback_tiles for piece in pieces)
    if len(pieces) == 1:
        return Band(pieces[0].rows, pieces[0].spread, fallback_tiles, 1, side)
    spreads = [piece.spread for piece in pieces if piece.spread is not None]
    rows = np.concatenate([piece.rows for piece in pieces], axis=1)
    return Band(rows, np.concatenate(spreads, axis=1) if spreads else None, fallback_tiles, len(pieces), side)


def restore_tiled(
    network: SameSize, image: Float[Tensor, "3 h w"], *, side: int | None = None
) -> Float[Tensor, "3 h w"]:
    """The network's output for an image in memory, by tiles of `side` pixels or what suits the network."""
    height, width = image.shape[1:]
    grid = grid_for(network.radius, network.align)
    if side is not None:
        grid = replace(grid, side=side)
    arithmetic = fastest(next(network.parameters()).device)
    restored = torch.empty_like(image)
    for band in grid.spans(0, height, height):
        for column in grid.spans(0, width, width):
            read = image[None, :, band.read_start : band.read_stop, column.read_start : column.read_stop]
            top, left = band.start - band.read_start, column.start - column.read_start
            kept = Part(top, top + band.stop - band.start, left, left + column.stop - column.start)
            result = compute(network, read, kept, arithmetic).result  # (1, 3, rows, columns)
            restored[:, band.start : band.stop, column.start : column.stop] = result[0]
    return restored

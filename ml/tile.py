"""A tile on its way through a network: from the file's pixels to RGB at the network's size, and back again.

Grey goes as three equal channels and comes back as their mean. Alpha goes through the same network, as a grey image of
its own. Everything here looks no further than `margin` source pixels, so that tiles agree with their neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ml.backbones import Part
from ml.distortions.resampling import resize
from ml.ensemble import Ensemble, ensemble, trust_map
from ml.tiling import Piece, RowBuffer, Rows, Span

Compute = Callable[[Float[Tensor, "b 3 h w"], Part], Float[Tensor, "b 3 _ _"]]

FILL: Final = 8  # How far the colours of visible pixels are continued below transparent ones, in source pixels.
CUBIC: Final = 3  # How far bicubic enlargement looks, in source pixels, and one more.
FLAT: Final = 2  # Alpha that is constant this far around a pixel stays exactly as it is,
EDGE: Final = 2 / 255  # and where it differs by this much or more it is what the network makes of it.


@dataclass(frozen=True)
class TileRestorer:
    """Restores tiles of one image: `channels` (1 to 4) of `depth` bits, enlarged by `scale` before the network.

    `compute` runs the network on the whole of its input and returns the given part of the result. `averaged` asks for
    the mean of eight symmetric runs (`ml.ensemble`), `explained` for their spread.
    """

    compute: Compute
    size: tuple[int, int]  # (height, width) of the source
    channels: int
    depth: int
    scale: int
    align: int
    averaged: bool = False
    explained: bool = False

    def __call__(self, rows: RowBuffer, band: Span, columns: list[Span]) -> list[Piece]:
        """The restored tiles where `columns` cross `band`; spans are in pixels of the enlarged image."""
        height, width = self.size
        top, bottom = self._source(band, height)
        source = rows.window(top, bottom)
        tiles = []
        for column in columns:
            left, right = self._source(column, width)
            pixels = self._unit(source[:, left:right])  # (channels, h, w)
            enlarged = self._enlarged(pixels)  # (channels, scale · h, scale · w)
            y, x = band.read_start - top * self.scale, column.read_start - left * self.scale
            read = slice(y, y + band.read_stop - band.read_start), slice(x, x + column.read_stop - column.read_start)
            tiles.append(enlarged[:, read[0], read[1]])
        batch = torch.stack(tiles)  # (b, channels, read height, read width)
        column = columns[0]  # The others have its shape.
        y, x = band.start - band.read_start, column.start - column.read_start
        kept = Part(y, y + band.stop - band.start, x, x + column.stop - column.start)
        return self._restored(batch, kept)

    def _source(self, span: Span, length: int) -> tuple[int, int]:
        """The source pixels from which what `span` reads can be made."""
        margin = (CUBIC if self.scale > 1 else 0) + (FILL if self.channels in {2, 4} else 0)
        return max(0, span.read_start // self.scale - margin), min(length, -(-span.read_stop // self.scale) + margin)

    def _unit(self, pixels: Rows) -> Float[Tensor, "c h w"]:
        """Values in [0, 1], with the colours of what is invisible replaced by those around it."""
        values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).div(self._brightest)  # (c, h, w)
        if self.channels in {2, 4}:
            return torch.cat([fill_transparent(values[:-1], values[-1:]), values[-1:]])
        return values

    def _enlarged(self, pixels: Float[Tensor, "c h w"]) -> Float[Tensor, "c h2 w2"]:
        """Bicubic, and rounded to the levels of the image: of 8 bits, as the network met them in training."""
        if self.scale == 1:
            return pixels
        height, width = pixels.shape[1] * self.scale, pixels.shape[2] * self.scale
        enlarged = torch.cat([resize(channel.expand(3, -1, -1), height, width)[:1] for channel in pixels.split(1)])
        return (enlarged * self._brightest).round() / self._brightest

    @property
    def _brightest(self) -> int:
        return (1 << self.depth) - 1

    def _restored(self, batch: Float[Tensor, "b c h w"], kept: Part) -> list[Piece]:
        colours = batch[:, :-1] if self.channels in {2, 4} else batch
        colours = colours.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        eight = self._eight(colours, kept) if self.averaged or self.explained else None
        restored = eight.mean if eight is not None and self.averaged else self.compute(colours, kept)
        if self.channels < 3:
            restored = restored.mean(dim=1, keepdim=True)
        if self.channels in {2, 4}:
            restored = torch.cat([restored, self._alpha(batch[:, -1:], kept)], dim=1)
        levels = (restored.clamp(0, 1) * self._brightest).round().permute(0, 2, 3, 1)  # (b, h, w, c)
        rows = levels.to(torch.int32).numpy().astype(np.uint8 if self.depth == 8 else np.uint16)
        if eight is None or not self.explained:
            return [Piece(tile) for tile in rows]
        maps = trust_map(eight.std).permute(0, 2, 3, 1).numpy()  # (b, h, w, 1)
        return [Piece(tile, trust) for tile, trust in zip(rows, maps, strict=True)]

    def _eight(self, image: Float[Tensor, "b 3 h w"], kept: Part) -> Ensemble:
        def whole(turned: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
            return self.compute(turned, Part(0, turned.shape[2], 0, turned.shape[3]))

        eight = ensemble(whole, image, self.align)
        part = (..., slice(kept.top, kept.bottom), slice(kept.left, kept.right))
        return Ensemble(eight.mean[part], eight.std[part])

    def _alpha(self, alpha: Float[Tensor, "b 1 h w"], kept: Part) -> Float[Tensor, "b 1 h2 w2"]:
        """Restored as a grey image, but for areas of one value: opaque stays opaque, and empty empty."""
        part = (..., slice(kept.top, kept.bottom), slice(kept.left, kept.right))
        side = 2 * FLAT + 1
        contrast = F.max_pool2d(alpha, side, 1, FLAT) + F.max_pool2d(-alpha, side, 1, FLAT)  # highest − lowest around
        share = (contrast[part] / EDGE).clamp(max=1)  # By degrees: a threshold would make steps.
        if not share.any():
            return alpha[part]
        grey = alpha.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        restored = self._eight(grey, kept).mean if self.averaged else self.compute(grey, kept)
        return torch.lerp(alpha[part], restored.mean(dim=1, keepdim=True), share)


def fill_transparent(colours: Float[Tensor, "c h w"], alpha: Float[Tensor, "1 h w"]) -> Float[Tensor, "c h w"]:
    """Continue the colours of visible pixels into fully transparent ones, `FILL` pixels far.

    What lies below transparency is arbitrary, often black; a network that saw it would draw it as a fringe around what
    is visible.
    """
    invisible = alpha == 0
    if not invisible.any():
        return colours
    sums = F.avg_pool2d(torch.cat([colours * alpha, alpha])[None], 2 * FILL + 1, 1, FILL, divisor_override=1)[0]
    known = sums[-1:] > 0
    around = torch.where(known, sums[:-1] / sums[-1:].clamp(min=1e-6), colours)
    return torch.where(invisible, around, colours)

"""Reads the rows of a BMP, which libvips does not know; Pillow judges the header and unpacks one strip at a time."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image


class BmpRows:
    """The rows of an uncompressed BMP, whose pixels lie in the file row by row, mostly from the bottom up.

    Raises ValueError for what is no such file; Pillow's own errors may come through as well.
    """

    def __init__(self, file: io.BytesIO | io.BufferedReader) -> None:
        image = BmpImagePlugin.BmpImageFile(file)
        tile = image.tile[0]
        if tile.codec_name != "raw":
            raise ValueError("it is run-length encoded, which is not supported")
        arguments: Any = tile.args
        self._raw_mode, self._stride, self._direction = arguments
        self._offset = tile.offset
        self._file, self._mode, self._palette = file, image.mode, image.palette
        self.width, self.height = image.size
        self.mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
        self.dots_per_inch: tuple[float, float] | None = image.info.get("dpi")

    @property
    def channels(self) -> int:
        return {"L": 1, "RGB": 3, "RGBA": 4}[self.mode]

    def fetch(self, top: int, count: int) -> NDArray[np.uint8]:
        """Rows `top` to `top + count` as (count, width, channels). Raises ValueError where the file ends too early."""
        first = top if self._direction > 0 else self.height - top - count
        self._file.seek(self._offset + first * self._stride)
        stored = self._file.read(count * self._stride)
        if len(stored) < count * self._stride:
            raise ValueError("it ends too early")
        strip = Image.frombytes(
            self._mode, (self.width, count), stored, "raw", self._raw_mode, self._stride, self._direction
        )
        if self._palette is not None:
            mode, colours = self._palette.getdata()
            strip.putpalette(colours, mode)
        return np.asarray(strip.convert(self.mode)).reshape(count, self.width, self.channels)

"""A bounded number of square windows of an image, collected while its rows stream past."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

SIDE = 128  # of a window; an image with a shorter side gives windows of that side
MOST = 16  # windows of one image, however large it is


def positions(height: int, width: int) -> list[tuple[int, int]]:
    """Top left corners of the windows, on a regular grid that depends on the size alone."""
    down = min(max(1, height // SIDE), 4)
    across = min(max(1, width // SIDE), MOST // down)
    return [(top, left) for top in _starts(height, down) for left in _starts(width, across)]


def _starts(length: int, count: int) -> list[int]:
    room = max(0, length - SIDE)
    if count == 1:
        return [room // 2]
    return [round(index * room / (count - 1)) for index in range(count)]


@dataclass
class WindowSampler:
    """Keeps the windows of an image of which only some rows are in memory at a time.

    It holds at most 16 windows of 128×128, 3 MiB, whatever the image.
    """

    height: int
    width: int
    _windows: Float[Tensor, "n 3 h w"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = (3, min(SIDE, self.height), min(SIDE, self.width))
        self._windows = torch.zeros(len(positions(self.height, self.width)), *shape)

    def add_rows(self, top: int, rows: Float[Tensor, "3 r {self.width}"]) -> None:
        """Take what is needed of the image's rows `top` … `top` + r − 1. Every row must come once, in any order."""
        side = self._windows.shape[2]
        for window, (first, left) in zip(self._windows, positions(self.height, self.width), strict=True):
            begin, end = max(top, first), min(top + rows.shape[1], first + side)
            if begin < end:
                part = rows[:, begin - top : end - top, left : left + window.shape[2]]
                window[:, begin - first : end - first] = part

    def windows(self) -> Float[Tensor, "n 3 h w"]:
        """The windows, once every row has come."""
        return self._windows


def windows_of(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "n 3 wh ww"]:
    """The windows of an image that is in memory."""
    sampler = WindowSampler(image.shape[1], image.shape[2])
    sampler.add_rows(0, image)
    return sampler.windows()

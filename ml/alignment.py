"""PSNR that forgives a shift: what a restored image is worth to the eye, where the pair was not quite aligned."""

from itertools import product
from math import pi
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ml.metrics import psnr

REACH: Final = 2  # Pixels in each direction; pairs that lie farther apart should be aligned before training.
BESIDE: Final = REACH + 1  # One pixel farther the error is measured, too, so that a parabola has both its sides.
RIM: Final = 4  # Pixels at the border that a shift makes up, and that count for neither image.


def aligned_psnr(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> float:
    """PSNR in dB after the one shift of the image, by fractions of a pixel up to two, that brings it closest.

    Never less than the PSNR without a shift. Whole pixels are tried, a parabola through the mean squared errors tells
    the fraction, and the shift is one of phases, which loses no detail.
    """
    strict = psnr(image, clean)
    height, width = clean.shape[1:]
    if min(height, width) < 4 * RIM:
        return strict
    y, x = _best_shift(image, clean)
    inner = (slice(None), slice(RIM, height - RIM), slice(RIM, width - RIM))
    return max(strict, psnr(shifted(image, y, x)[inner].clamp(0, 1), clean[inner]))


def _best_shift(image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> tuple[float, float]:
    """By how much the image must be moved down and to the right."""
    height, width = clean.shape[1:]
    target = clean[:, RIM : height - RIM, RIM : width - RIM]
    errors = torch.empty(2 * BESIDE + 1, 2 * BESIDE + 1)
    for y, x in product(range(-BESIDE, BESIDE + 1), repeat=2):
        moved = image[:, RIM - y : height - RIM - y, RIM - x : width - RIM - x]
        errors[y + BESIDE, x + BESIDE] = (moved - target).square().mean()
    row, column = (1 + place for place in divmod(int(errors[1:-1, 1:-1].argmin()), 2 * REACH + 1))
    down, right = row - BESIDE + _vertex(errors[:, column], row), column - BESIDE + _vertex(errors[row], column)
    return max(-REACH, min(REACH, down)), max(-REACH, min(REACH, right))


def _vertex(errors: Float[Tensor, "n"], least: int) -> float:
    """How far beside this error the parabola through it and its neighbours has its minimum."""
    before, here, after = errors[least - 1 : least + 2].tolist()
    curvature = before - 2 * here + after
    return (before - after) / (2 * curvature) if curvature > 0 else 0.0


def shifted(image: Float[Tensor, "3 h w"], y: float, x: float) -> Float[Tensor, "3 h w"]:
    """The image moved down by y and right by x pixels, what leaves on one side coming in on the other."""
    height, width = image.shape[1:]
    turns = torch.fft.fftfreq(height)[:, None] * y + torch.fft.rfftfreq(width)[None] * x  # (h, w / 2 + 1)
    spectrum = torch.fft.rfft2(image) * torch.exp(-2j * pi * turns)
    moved: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return moved

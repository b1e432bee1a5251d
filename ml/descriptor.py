"""What a distortion leaves in a single image, as 25 numbers that need no clean image beside it.

Noise shows where an image is quiet, blur where it is busy, and compression at the borders of its 8×8 blocks. So each
window is cut into blocks of 32×32, and the power spectra of the quietest and of the busiest quarter of them are kept in
decades, for light and for colour apart. The spectrum of the quiet blocks says how strong the noise is and how smooth
(its autocorrelation, by Wiener–Khinchin: demosaicing and denoising take the high frequencies away).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BLOCK: Final = 32
SHORTEST_SIDE: Final = 64  # of an image; less holds too few blocks to tell noise from texture
QUARTER: Final = 0.25
BAND_EDGES: Final = (0.05, 0.11, 0.18, 0.26, 0.34, 0.42, 0.5, 0.72)  # cycles a pixel, from coarse to the corners
BANDS: Final = len(BAND_EDGES) - 1
MIDDLE: Final = slice(1, 4)  # the bands by which blocks are called quiet or busy: texture more than noise
COLOUR_BANDS: Final = slice(0, BANDS, 2)
ROUNDING: Final = 1 / 12  # variance of rounding to 8 bits, in levels²: the floor of every power
VALUES: Final = BANDS + (BANDS - 1) + 4 + 4 + 2 + 1 + 1


@dataclass(frozen=True)
class Descriptor:
    """One image: the mean of what its windows say, and how many windows there were."""

    values: Float[Tensor, "25"]
    windows: int


def describe(windows: Float[Tensor, "n 3 h w"]) -> Descriptor | None:
    """Describe an image by its windows (`ml.windows`). None for an image of less than 64 pixels on a side.

    About 1.5 ms a window on one core. Values are rounded to 8 bits first, so that deep files compare with others.
    """
    if min(windows.shape[2:]) < SHORTEST_SIDE:
        return None
    return Descriptor(describe_each(windows).mean(dim=0), len(windows))


def describe_each(windows: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 25"]:
    """The values of every window alone; unchanged by flips and quarter turns of a window whose sides are whole blocks.

    In this order: 7 bands of light in the quiet blocks; 6 bands of light in the busy ones, over the coarsest band;
    4 bands of colour in the quiet blocks; 4 of colour over light in the busy ones; how much more the spectrum holds
    along one axis than along the other, quiet and busy; the borders of JPEG's blocks; the peakedness of the details.
    """
    red, green, blue = (windows.clamp(0, 1) * 255).round().unbind(dim=1)
    light = (red + 2 * green + blue) / 4  # (n, h, w)
    planes = torch.stack([light, (blue - green) / 2, (red - green) / 2], dim=1)  # (n, 3, h, w)
    power = _power(planes)  # (n, b, 3, bands + 2)
    order = power[:, :, 0, MIDDLE].sum(dim=2).argsort(dim=1)  # (n, b)
    count = max(1, round(QUARTER * order.shape[1]))
    quiet, busy = (_mean_of(power, chosen) for chosen in (order[:, :count], order[:, -count:]))  # (n, 3, bands + 2)
    quiet_light, busy_light = _decades(quiet[:, 0]), _decades(busy[:, 0])  # (n, bands + 2)
    quiet_colour, busy_colour = (_decades(blocks[:, 1:].mean(dim=1)) for blocks in (quiet, busy))  # (n, bands + 2)
    return torch.cat(
        [
            quiet_light[:, :BANDS],
            busy_light[:, 1:BANDS] - busy_light[:, :1],
            quiet_colour[:, COLOUR_BANDS],
            (busy_colour - busy_light)[:, COLOUR_BANDS],
            (quiet_light[:, -2:-1] - quiet_light[:, -1:]).abs(),
            (busy_light[:, -2:-1] - busy_light[:, -1:]).abs(),
            _block_borders(light)[:, None],
            _peakedness(light)[:, None],
        ],
        dim=1,
    )  # (n, 25)


def _filters() -> tuple[Float[Tensor, "32 32"], Float[Tensor, "544 9"]]:
    """The taper of a block, and what averages its half-plane spectrum over the bands and along both axes."""
    line = torch.sin(torch.pi * (torch.arange(BLOCK) + 0.5) / BLOCK).square()  # Hann's, between samples: symmetric
    taper = line[:, None] * line
    down, across = torch.fft.fftfreq(BLOCK).abs()[:, None], torch.fft.rfftfreq(BLOCK)[None]
    radius = torch.hypot(down, across)  # (32, 17)
    weight = torch.full_like(radius, 2.0)  # The half that is left out mirrors the one that is kept,
    weight[:, [0, -1]] = 1.0  # but for the columns that mirror themselves.
    fine = (radius >= BAND_EDGES[2]) & (radius < BAND_EDGES[-2])
    rings = [(radius >= low) & (radius < high) for low, high in pairwise(BAND_EDGES)]
    masks = torch.stack([*rings, fine & (across > 2 * down), fine & (down > 2 * across)]) * weight  # (9, 32, 17)
    masks = masks / masks.sum(dim=(1, 2), keepdim=True)
    return taper / taper.square().sum().sqrt(), masks.flatten(1).T.contiguous()


TAPER, MASKS = _filters()


def _power(planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n b c 9"]:
    """Mean power of each block in the bands and along both axes, in levels²; white noise has its variance in all."""
    blocks = planes.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)  # (n, c, by, bx, 32, 32)
    blocks = blocks.flatten(2, 3).transpose(1, 2)  # (n, b, c, 32, 32)
    centred = blocks - blocks.mean(dim=(-2, -1), keepdim=True)
    spectrum = torch.fft.rfft2(centred * TAPER)  # (n, b, c, 32, 17)
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power.flatten(3) @ MASKS


def _mean_of(power: Float[Tensor, "n b c k"], chosen: Int64[Tensor, "n m"]) -> Float[Tensor, "n c k"]:
    return torch.take_along_dim(power, chosen[:, :, None, None], dim=1).mean(dim=1)


def _decades(power: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return (power + ROUNDING).log10()


def _block_borders(light: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """How much higher steps are at every eighth pixel than elsewhere, wherever the grid begins, in decades."""
    both = []
    for image in (light, light.transpose(1, 2)):
        step = image.diff(dim=2).abs()  # (n, h, w − 1)
        excess = step[..., 1:-1] - (step[..., :-2] + step[..., 2:]) / 2  # (n, h, w − 3)
        profile = excess.clamp(-8, 8).mean(dim=1)  # (n, w − 3); strong edges of the picture would drown the grid
        phases = torch.stack([profile[:, phase::8].mean(dim=1) for phase in range(8)], dim=1)  # (n, 8)
        both.append(phases.amax(dim=1) - phases.median(dim=1).values)
    return (torch.stack(both).mean(dim=0) + 0.15).log10()


def _peakedness(light: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Mean square over squared mean magnitude of the finest diagonal detail: noise is even, edges are rare and high."""
    detail = light.diff(dim=1).diff(dim=2).flatten(1)  # (n, (h − 1)(w − 1))
    return ((detail.square().mean(dim=1) + 0.25) / (detail.abs().mean(dim=1) + 0.4).square()).log10()

"""How far a restored crop is from the clean one."""

from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

LossName = Literal["l1", "shift_tolerant"]

REACH: Final = 1  # Pixels; pairs that lie farther apart should be aligned instead.


def loss_between(
    restored: Float[Tensor, "b 3 h w"], clean: Float[Tensor, "b 3 h w"], name: LossName = "l1"
) -> Float[Tensor, ""]:
    """The loss of that name, a mean over the batch."""
    match name:
        case "l1":
            return (restored - clean).abs().mean()  # Eq. (3)
        case "shift_tolerant":
            return shift_tolerant_l1(restored, clean)


def shift_tolerant_l1(restored: Float[Tensor, "b 3 h w"], clean: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Of each crop the least L1 over all shifts by up to one pixel, so that misalignment is not paid for with blur.

    The border that some shift would lack is left out of all, which makes them comparable. At most the plain L1 of the
    same inner part. After the contextual bilateral loss (Zhang et al., CVPR 2019, arXiv:1905.05169), in pixels
    instead of features.
    """
    height, width = clean.shape[2:]
    inner = restored[..., REACH : height - REACH, REACH : width - REACH]
    distances = [
        (inner - clean[..., y : y + height - 2 * REACH, x : x + width - 2 * REACH]).abs().mean(dim=(1, 2, 3))  # (b,)
        for y in range(2 * REACH + 1)
        for x in range(2 * REACH + 1)
    ]
    return torch.stack(distances).amin(dim=0).mean()

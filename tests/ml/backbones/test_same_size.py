"""Any body as a network of the same size."""

from collections.abc import Callable

import torch
from torch import nn

from ml.backbones import SameSize

Seeded = Callable[[int], torch.Generator]


def test_the_body_sees_each_cell_of_unshuffled_pixels_as_channels(seeded: Seeded) -> None:
    """An identity body doubles the image, whatever the grouping; one that keeps one channel keeps a pixel a cell."""
    image = torch.rand(1, 3, 37, 31, generator=seeded(0))
    assert torch.equal(SameSize(nn.Identity(), 2)(image), image * 2)
    keep = nn.Conv2d(12, 12, 1, bias=False)
    with torch.no_grad():
        keep.weight.zero_()
        keep.weight[0, 0] = 1
        residual = SameSize(keep, 2)(image) - image
    assert torch.allclose(residual[:, 0, ::2, ::2], image[:, 0, ::2, ::2], atol=1e-6)
    assert residual[:, 0, 1::2].abs().max() == 0
    assert residual[:, 1:].abs().max() == 0

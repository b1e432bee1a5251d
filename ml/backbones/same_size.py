"""What makes any body of convolutions a restoration network: same size out, and the geometry of its tiles."""

from typing import Final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.backbones.reach import reach
from ml.backbones.windows import Part, Window, in_windows

WORTH_CUTTING: Final = 8  # Rows and columns; a cut costs the next layer a copy.


class SameSize(nn.Module):
    """Adds what the body computes at 1/`unshuffle` of the resolution to the image itself.

    `unshuffle` = 1 is the papers' form; 2 costs about a quarter. The body maps 3·unshuffle² channels to as many. A body
    that pools over the whole image is given a `window`: outside training it then sees an image through windows on a
    fixed grid and nothing beyond them (`ml/backbones/windows.py`).
    """

    def __init__(self, body: nn.Module, unshuffle: int, window: Window | None = None) -> None:
        super().__init__()
        assert window is None or (window.core % unshuffle, window.margin % unshuffle) == (0, 0)
        self.body = body
        self.unshuffle = unshuffle
        self.window = window

    @property
    def align(self) -> int:
        """Tiles start at multiples of this many pixels, and end there or at the image's border."""
        return self.window.core if self.window else self.unshuffle

    @property
    def radius(self) -> int:
        """How many pixels beyond such a tile an input pixel can still change an output pixel inside it.

        In between, an aligned tile needs no more: the cells of a pixel-unshuffle and the windows it consists of are its
        own.
        """
        return self.window.margin if self.window else reach(self.body) * self.unshuffle

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        if self.window is None or self.training:
            return self._whole(image)
        return in_windows(self._whole, image, _all_of(image), self.window)

    def restore_part(
        self, image: Float[Tensor, "b 3 h w"], part: Part
    ) -> Float[Tensor, "b 3 {part.height} {part.width}"]:
        """What `forward` gives inside `part`, without computing windows or borders of features that are none of it."""
        if self.window is not None and not self.training:
            return in_windows(self._whole, image, part, self.window)
        r = self.unshuffle
        cells = Part(part.top // r, -(-part.bottom // r), part.left // r, -(-part.right // r))
        residual = F.pixel_shuffle(_run(self.body, self.cells(image), cells), r)
        top, left = part.top - cells.top * r, part.left - cells.left * r
        residual = residual[..., top : top + part.height, left : left + part.width]
        return image[..., part.top : part.bottom, part.left : part.right] + residual

    def _whole(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        height, width = image.shape[-2:]
        residual = F.pixel_shuffle(self.body(self.cells(image)), self.unshuffle)
        return image + residual[..., :height, :width]

    def cells(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """The image at 1/`unshuffle` of the resolution, as the body sees it; the border is repeated where need be."""
        r = self.unshuffle
        padded = F.pad(image, (0, -image.shape[3] % r, 0, -image.shape[2] % r), mode="replicate")
        return F.pixel_unshuffle(padded, r)


def _all_of(image: Float[Tensor, "b c h w"]) -> Part:
    return Part(0, image.shape[2], 0, image.shape[3])


def _run(
    body: nn.Module, features: Float[Tensor, "b c h w"], part: Part
) -> Float[Tensor, "b c2 {part.height} {part.width}"]:
    """What the body makes of `part` of its input.

    A plain stack drops on its way what no later layer looks at: the border that a tile needs shrinks from layer to
    layer, which nearly halves what is computed twice.
    """
    y, x = 0, 0  # Where in the input the features begin.
    if isinstance(body, nn.Sequential):
        left_to_see = reach(body)
        for layer in body:
            features = layer(features)
            left_to_see -= reach(layer)
            top, left = max(y, part.top - left_to_see), max(x, part.left - left_to_see)
            bottom = min(y + features.shape[2], part.bottom + left_to_see)
            right = min(x + features.shape[3], part.right + left_to_see)
            if features.shape[2] + features.shape[3] - (bottom - top) - (right - left) >= WORTH_CUTTING:
                features, y, x = features[..., top - y : bottom - y, left - x : right - x], top, left
    else:
        features = body(features)
    return features[..., part.top - y : part.bottom - y, part.left - x : part.right - x]

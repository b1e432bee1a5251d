"""What makes any body of convolutions a restoration network: same size out, and the geometry of its tiles."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.backbones.reach import reach
from ml.backbones.windows import Part, Window, in_windows


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
        return self.restore_part(image, Part(0, image.shape[2], 0, image.shape[3]))

    def restore_part(
        self, image: Float[Tensor, "b 3 h w"], part: Part
    ) -> Float[Tensor, "b 3 {part.height} {part.width}"]:
        """What `forward` gives inside `part`, without computing windows that are none of it."""
        if self.window is None or self.training:
            return self._at_once(image)[..., part.top : part.bottom, part.left : part.right]
        return in_windows(self._at_once, image, part, self.window)

    def _at_once(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        height, width = image.shape[-2:]
        r = self.unshuffle
        padded = F.pad(image, (0, -width % r, 0, -height % r), mode="replicate")
        residual = F.pixel_shuffle(self.body(F.pixel_unshuffle(padded, r)), r)
        return image + residual[..., :height, :width]

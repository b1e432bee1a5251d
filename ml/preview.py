"""A crop of a held-out pair, restored with the weights of the moment: something to look at while a job trains."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ml.backbones import SameSize
from ml.evaluate import restored_as_served
from ml.image_metadata import Metadata
from ml.image_writer import ImageCanvas, Output
from ml.images import from_uint8, to_uint8
from ml.metrics import psnr
from ml.pairs import TargetPair
from ml.precision import NotFinite

SIDE: Final = 192  # Pixels; large enough to see texture, small enough to cost less than a training step.
GRID: Final = 16  # Crops are compared at this distance.


@dataclass(frozen=True)
class Preview:
    """Input, restored and clean crop side by side as a PNG, each `width`×`height` pixels; PSNR in dB, of the crop."""

    pair: str
    candidate: str
    step: int
    width: int
    height: int
    psnr: float
    input_psnr: float
    png: bytes


class Viewpoint:
    """Where the preview looks: the crop of a held-out pair with the most detail."""

    def __init__(self, pair: TargetPair) -> None:
        top, bottom, left, right = busiest(from_uint8(pair.clean))
        self.pair, self.grey = pair.name, pair.grey
        self.clean: Float[Tensor, "3 h w"] = from_uint8(pair.clean[:, top:bottom, left:right])
        self.distorted: Float[Tensor, "3 h w"] = from_uint8(pair.distorted[:, top:bottom, left:right])
        self.input_psnr = psnr(self.distorted, self.clean)

    def look(self, network: SameSize, candidate: str, step: int) -> Preview:
        """Restore the crop, black where that fails. The network is left as it was, and no random number is drawn."""
        trains = network.training
        network.eval()
        try:
            restored = restored_as_served(network, self.distorted, grey=self.grey)
            quality = psnr(restored, self.clean)
        except NotFinite:
            restored, quality = torch.zeros_like(self.clean), 0.0
        finally:
            network.train(trains)
        strip = torch.cat([self.distorted, restored, self.clean], dim=2)  # (3, h, 3 w)
        height, width = self.clean.shape[1:]
        with ImageCanvas(3 * width, height, channels=3, depth=8) as canvas:
            canvas.append(to_uint8(strip).permute(1, 2, 0).numpy())  # (h, 3 w, 3)
            image = canvas.encode(Output("png"), Metadata())
        return Preview(self.pair, candidate, step, width, height, quality, self.input_psnr, image)


def busiest(image: Float[Tensor, "3 h w"], side: int = SIDE) -> tuple[int, int, int, int]:
    """The square window (top, bottom, left, right), or as much of it as there is, with the largest mean gradient."""
    grey = image.mean(dim=0)  # (h, w)
    height, width = min(side, grey.shape[0]), min(side, grey.shape[1])
    detail = torch.zeros_like(grey)
    detail[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    detail[1:] += (grey[1:] - grey[:-1]).abs()
    mean = torch.nn.functional.avg_pool2d(detail[None], (height, width), stride=GRID)[0]  # (rows, columns)
    row, column = divmod(int(mean.argmax()), mean.shape[1])
    top, left = row * GRID, column * GRID
    return top, top + height, left, left + width

"""A trained model at work: encoded image in, restored image out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml.backbones import SameSize
from ml.distortions import resize
from ml.images import MEDIA_TYPES, FileFormat, Picture, decode, encode, from_uint8, to_uint8
from ml.model_file import unpack
from ml.precision import device, has_fast_bf16
from ml.tiling import TILE, restore_tiled, tiles


@dataclass(frozen=True)
class Restored:
    """A restored image file, and how it was made. `seconds` is the network's share."""

    data: bytes
    media_type: str
    width: int
    height: int
    tile: int
    tiles: int
    precision: str
    seconds: float


@dataclass(frozen=True)
class Restorer:
    """A model held ready on its device."""

    network: SameSize
    backbone: str
    scale: int

    def restore(
        self, file: bytes, output: FileFormat = "png", after_tile: Callable[[], None] = lambda: None
    ) -> Restored:
        """Restore an image, enlarged by `scale`. Alpha is carried through beside the colours, grey stays grey.

        `after_tile` may raise to stop. Raises ValueError for what is no readable image.
        """
        picture = decode(file)
        height, width = picture.pixels.shape[1] * self.scale, picture.pixels.shape[2] * self.scale
        pixels, alpha = picture.pixels, picture.alpha
        if self.scale > 1:
            pixels = from_uint8(to_uint8(resize(pixels, height, width)))  # As the network met them in training.
            if alpha is not None:
                alpha = resize(alpha.expand(3, -1, -1), height, width)[:1]
        started = time.perf_counter()
        restored = restore_tiled(self.network, pixels, after_tile=after_tile)
        seconds = time.perf_counter() - started
        return Restored(
            encode(Picture(restored, alpha, picture.grey, picture.icc_profile), output),
            MEDIA_TYPES[output],
            width,
            height,
            tile=TILE,
            tiles=len(tiles(height, width, TILE, 0, 1)),
            precision="bf16" if has_fast_bf16(device()) else "fp32",
            seconds=seconds,
        )


def load_restorer(path: Path) -> Restorer:
    """Load a model file for inference. Raises ValueError for a file that is none of ours."""
    network, card = unpack(path)
    return Restorer(network.to(device()), card["backbone"], card["scale"])

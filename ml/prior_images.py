"""What a prior is trained on: photographs, which are known again by their digest, and generated images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from ml.auxiliary import MARGIN
from ml.dead_leaves import dead_leaves
from ml.images import decode, digest_of, image_files, to_uint8
from ml.relation import PATCH
from ml.sampling import generator_for

LEAST_SIDE = PATCH + 2 * MARGIN  # What a training crop with its margin is cut from.
DEAD_LEAVES = 12
DEAD_LEAVES_SIDE = 512
GENERATED = f"{DEAD_LEAVES} dead-leaves images of {DEAD_LEAVES_SIDE}×{DEAD_LEAVES_SIDE}"


@dataclass(frozen=True)
class Photograph:
    """A decoded file, in 8 bits, or a part of it; `sha256` is of all its pixels, so that another file's are the same.

    `name` is the file's, without its folder.
    """

    name: str
    sha256: str
    pixels: UInt8[Tensor, "3 h w"]

    def middle(self, side: int) -> "Photograph":
        """The square of so many pixels in the middle, still known as what it was cut from."""
        height, width = self.pixels.shape[1:]
        top, left = (height - side) // 2, (width - side) // 2
        return replace(self, pixels=self.pixels[:, top : top + side, left : left + side].clone())


def photographs_in(folders: Sequence[Path], least_side: int = LEAST_SIDE) -> Iterator[Photograph]:
    """The images of the folders with no side shorter than that, by folder and name, read one by one.

    Raises ValueError for a folder without any, and for a file that cannot be read; OSError for a folder that cannot.
    """
    for folder in folders:
        usable = 0
        for file in image_files(folder):
            try:
                pixels = to_uint8(decode(file).pixels)
            except (OSError, ValueError) as error:
                raise ValueError(f"{file}: {error}") from error
            if min(pixels.shape[1:]) >= least_side:
                usable += 1
                yield Photograph(file.name, digest_of([pixels]), pixels)
        if not usable:
            raise ValueError(f"folder: no usable image in {folder}, of {least_side} pixels or more")


def load_photographs(folders: Sequence[Path]) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images of the folders that are large enough to be distorted with a margin. Raises as `photographs_in`."""
    return [photograph.pixels for photograph in photographs_in(folders)]


def generated_images(seed: int) -> list[UInt8[Tensor, "3 _ _"]]:
    """Dead leaves, so that a prior has seen edges and textures of every size, whatever the photographs show."""
    return [
        to_uint8(dead_leaves(DEAD_LEAVES_SIDE, generator_for(seed, "leaves", index))) for index in range(DEAD_LEAVES)
    ]


def training_images(photographs: Sequence[Photograph], seed: int) -> list[UInt8[Tensor, "3 _ _"]]:
    return [photograph.pixels for photograph in photographs] + generated_images(seed)

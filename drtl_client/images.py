"""Images as callers have them, on their way to the service and back."""

import io
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import httpx

from drtl_client.flow import Part

if TYPE_CHECKING:  # Both are optional: only those who pass or ask for such images need them.
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image as PillowImage

    ImageInput: TypeAlias = str | os.PathLike[str] | bytes | PillowImage.Image | NDArray[Any]
else:
    ImageInput = Any

COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's number for so many channels.


def as_part(field_name: str, image: "ImageInput", name: str = "image") -> Part:
    """The image as a file of a form. Files are sent as they are, Pillow images and arrays as PNG, without loss.

    Arrays have height, width and, unless grey, 1–4 channels; 8 or 16 bits. Raises TypeError or ValueError for others.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return Part(field_name, path.name, path)
    if isinstance(image, bytes | bytearray | memoryview):
        return Part(field_name, name, bytes(image))
    if hasattr(image, "__array_interface__") and not hasattr(image, "save"):
        return Part(field_name, f"{name}.png", png(image))
    if hasattr(image, "save"):
        buffer = io.BytesIO()
        try:
            image.save(buffer, "PNG")
        except OSError as error:  # Pillow's word for a mode that the format does not have, and for damaged pixels.
            raise ValueError(
                f"the Pillow image cannot be sent as PNG: {error}; send its file, or convert it"
            ) from error
        return Part(field_name, f"{name}.png", buffer.getvalue())
    kind = type(image).__name__
    raise TypeError(f"an image is a path, bytes, a Pillow image or an array, not {kind}")


def png(array: "NDArray[Any]") -> bytes:
    """A PNG of an array, with neither Pillow nor a loss of bits."""
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in COLOUR_TYPES:
        raise ValueError(f"an image has height, width and 1 to 4 channels; the array is of shape {array.shape}")
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ValueError(f"an image is uint8 or uint16; the array is {array.dtype}")
    height, width = array.shape[:2]
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)  # 0: no filter on this row.
    header = struct.pack(">IIBBBBB", width, height, 8 * array.dtype.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered, 3)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


@dataclass(frozen=True)
class HowRestored:
    """How a restored image came about, as its headers say."""

    media_type: str
    model: str  # name@version
    tile: int | None  # Side of the tiles, pixels.
    precision: str | None  # Arithmetic, such as "bf16".
    match: float | None  # How close the image's distortion is to the model's, 0…1, where the service says.
    match_word: str | None  # "close", "near", or "far": then the result is not to be relied on.
    seconds: float | None  # In the worker.
    headers: httpx.Headers = field(repr=False)

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        return cls(**_facts(response.headers))


def _facts(told: httpx.Headers) -> dict[str, Any]:
    milliseconds = told.get("Server-Timing", "").partition("restore;dur=")[2].partition(",")[0]
    return {
        "media_type": told.get("Content-Type", ""),
        "model": told.get("X-DRTL-Model", ""),
        "tile": int(told["X-DRTL-Tile"]) if told.get("X-DRTL-Tile", "").isdecimal() else None,
        "precision": told.get("X-DRTL-Precision") or None,
        "match": float(told["X-DRTL-Match"]) if told.get("X-DRTL-Match") else None,
        "match_word": told.get("X-DRTL-Match-Word") or None,
        "seconds": float(milliseconds) / 1000 if milliseconds else None,
        "headers": told,
    }


@dataclass(frozen=True)
class Restored(HowRestored):
    """A restored image, and how it came about."""

    content: bytes = field(repr=False)

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        return cls(**_facts(response.headers), content=response.content)

    def image(self) -> "PillowImage.Image":
        """As a Pillow image, loaded."""
        from PIL import Image

        image = Image.open(io.BytesIO(self.content))
        image.load()
        return image

    def array(self) -> "NDArray[np.uint8]":
        """As an array of height, width and channels (none for grey), 8 bits.

        Raises ValueError for 16-bit colour, which Pillow would cut to 8: use `save` and a reader that keeps it.
        """
        import numpy as np

        if self.media_type == "image/png" and self.content[24] == 16 and self.content[25] in (2, 6):
            raise ValueError("the image has 16 bits a channel, which would be lost: save() it instead")
        return np.asarray(self.image())

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes]:
        """What a notebook shows."""
        return {self.media_type: self.content}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the bytes, as they came, to the file; returns its path."""
        target = Path(path)
        target.write_bytes(self.content)
        return target

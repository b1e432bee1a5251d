"""What the head of an image file says and its decoder does not: frames, oddities, how the pixels are laid out."""

import io
import struct
from typing import Final

MAX_PNG_CHUNKS: Final = 10_000  # before the pixels
MAX_JPEG_SEGMENTS: Final = 10_000  # before the pixels
JPEG_TAIL_BYTES: Final = 1 << 16  # Where the end of a JPEG is looked for
MAX_TIFF_TAGS: Final = 4096
TIFF_NUMBERS: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8
COMPRESSION, PHOTOMETRIC, ROWS_PER_STRIP, PLANAR_CONFIGURATION = 259, 262, 278, 284


def refuse_animated_png(file: io.BufferedIOBase) -> None:
    """libvips shows the first frame of an APNG without a word; its `acTL` chunk stands before the pixels."""
    position = 8
    for _ in range(MAX_PNG_CHUNKS):
        file.seek(position)
        head = file.read(12)
        if len(head) < 12:
            raise ValueError("it ends too early")
        length, name, frames = struct.unpack(">I4sI", head)
        if name == b"acTL" and frames > 1:
            raise ValueError("it is animated; a still image is needed")
        if name == b"IDAT":
            return
        position += 12 + length
    raise ValueError(f"it has more than {MAX_PNG_CHUNKS} chunks before its pixels")


def is_odd_jpeg(file: io.BufferedIOBase) -> bool:
    """Whether libjpeg warns of something beside the pixels of a JPEG that harms none of them.

    That is a JFIF of a revision that it does not know, bytes between two segments, as old cameras leave them, and, as
    far as it looks there, which is in progressive ones, zeros between the last pixels and the end.
    """
    position, progressive = 2, False
    for _ in range(MAX_JPEG_SEGMENTS):
        file.seek(position)
        head = file.read(10)
        if len(head) < 4 or head[0] != 0xFF:
            return True
        if head[1] == 0xDA:  # The first scan begins.
            return progressive and _ends_padded(file)
        if head[1] == 0xE0 and head[4:9] == b"JFIF\0" and head[9:] != b"\x01":
            return True
        progressive |= head[1] == 0xC2
        position += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4])  # A marker may be filled up with 0xFF.
    return True


def _ends_padded(file: io.BufferedIOBase) -> bool:
    file.seek(max(0, file.seek(0, io.SEEK_END) - JPEG_TAIL_BYTES))
    tail = file.read(JPEG_TAIL_BYTES)
    return tail[: tail.rfind(b"\xff\xd9")].endswith(b"\0\0")


def tiff_tags(file: io.BufferedIOBase) -> dict[int, int]:
    """The tags of the first page that are a single whole number (TIFF 6.0, section 2, and BigTIFF)."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    place, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    (start,) = struct.unpack_from(order + place, head, 8 if big else 4)
    file.seek(start)
    (tags,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
    if tags > MAX_TIFF_TAGS:
        raise ValueError(f"it has more than {MAX_TIFF_TAGS} tags")
    found: dict[int, int] = {}
    for _ in range(tags):
        content = file.read(20 if big else 12)
        tag, kind, values = struct.unpack_from(order + entry, content)
        value = content[struct.calcsize(order + entry) :]
        number = TIFF_NUMBERS.get(kind)
        if values == 1 and number is not None and struct.calcsize(number) <= len(value):
            found.setdefault(tag, struct.unpack_from(order + number, value)[0])  # libtiff takes the first of several.
        elif tag in {PHOTOMETRIC, ROWS_PER_STRIP, PLANAR_CONFIGURATION}:
            raise ValueError(f"its tag {tag} is no single whole number")
    return found

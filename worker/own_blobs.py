"""Makes what equal jobs store differ, so that each may delete its own.

Blobs are named by their content, and two jobs with the same pairs, options and step have the same to store. If they
shared a blob, one might find it outdated, see that no row names it, and delete it in the moment in which the other has
stored it again and is about to name it.
"""

import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Final

PNG_END_BYTES: Final = 12  # of the chunk that ends every PNG
LARGEST_HEADER_BYTES: Final = 100_000_000  # by safetensors' own rule


def sign_safetensors(path: Path, owner: str) -> None:
    """Put the owner into the file's metadata, beside what is there."""
    signed = path.with_name(f"{path.name}.signed")
    with path.open("rb") as source, signed.open("wb") as target:
        (size,) = struct.unpack("<Q", source.read(8))
        assert size <= LARGEST_HEADER_BYTES
        header = json.loads(source.read(size))
        header["__metadata__"] = {**header.get("__metadata__", {}), "owner": owner}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # Tensors begin at multiples of eight.
        target.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(source, target)
    signed.replace(path)


def sign_png(png: bytes, owner: str) -> bytes:
    """The same image with one more text in it."""
    text = b"tEXt" + b"owner\0" + owner.encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return png[:-PNG_END_BYTES] + chunk + png[-PNG_END_BYTES:]

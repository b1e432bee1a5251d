"""Files from the service to disk, a piece at a time."""

import hashlib
import os
from pathlib import Path

from drtl_client.errors import Damaged
from drtl_client.flow import Flow, Request, read, send


def saved(request: Request, path: str | os.PathLike[str], *, name: str) -> Flow[Path]:
    """Write the answer's body to the path, or under `name` into it where it is a folder; whole, or not at all.

    Where the entity tag is a SHA-256, as the service's are, it is compared. Raises Damaged.
    """
    target = Path(path)
    if target.is_dir():
        target = target / name
    partial = target.with_name(f".{target.name}.part")
    response = yield from send(request, stream=True)
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            while (chunk := (yield from read())) is not None:
                file.write(chunk)
                digest.update(chunk)
        expected = response.headers.get("ETag", "").strip('"')
        if len(expected) == digest.digest_size * 2 and expected != digest.hexdigest():
            raise Damaged(f"{target.name} arrived damaged: its SHA-256 is not {expected}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target

"""Files from the service to disk, a piece at a time."""

import hashlib
import os
from pathlib import Path

import httpx

from drtl_client.errors import Damaged
from drtl_client.flow import Flow, Request, read, send


def saved(request: Request, path: str | os.PathLike[str], *, name: str) -> Flow[Path]:
    """Write the answer's body to the path, or under `name` into it where it is a folder or ends like one.

    Raises Damaged, OSError.
    """
    target = Path(path)
    if target.is_dir() or os.fspath(path).endswith(os.sep):
        target = target / name
    target.parent.mkdir(parents=True, exist_ok=True)
    yield from written((yield from send(request, stream=True)), target)
    return target


def written(response: httpx.Response, target: Path) -> Flow[None]:
    """Write what is still to be read of the response to the file, which appears under its name when it is whole.

    Where the entity tag is a SHA-256, as the service's are, it is compared. Raises Damaged, OSError.
    """
    partial = target.with_name(f".{target.name}.part")
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

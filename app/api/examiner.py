"""A child process that decodes images of pairs, to examine or to show them: a hostile file can harm nothing but it.

Run by `app/api/examiners.py` as `python -m app.api.examiner DESCRIPTOR`. Each request is a line of JSON that comes
with open files; the answer is lines of JSON: `{"entering": side}` before each file, then the report or the refusals.
"""

import contextlib
import errno
import io
import json
import resource
import socket
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from PIL import Image

from app.api.pair_files import FixedPair, PairLimits, RefusedPair, examine_pair
from app.api.renditions import render
from app.api.slices import Slice
from app.core.errors import ServiceError

IDLE_S: Final = 60.0  # Unused for this long, it ends and gives its memory back.
MOST_BYTES: Final = 1 << 30  # What it may allocate; two images of 64 megapixels one after the other need half.
MOST_REQUEST_BYTES: Final = 1 << 16
MOST_FILES: Final = 4  # Two to read and, with fixes, two to write.


def main() -> None:
    """Answer requests until there are no more."""
    with contextlib.suppress(ValueError, OSError):  # Not every system bounds it.
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        channel.settimeout(IDLE_S)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                message, descriptors, _, _ = socket.recv_fds(channel, MOST_REQUEST_BYTES, MOST_FILES)
                if not message:
                    return
                files = [open(descriptor, "r+b") for descriptor in descriptors]  # noqa: SIM115, PTH123 - closed below
                try:
                    _send(channel, _answer(json.loads(message), files, channel))
                except OSError as error:
                    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                        raise
                    _send(channel, {"disk_full": True})  # Which is no fault of the image.
                finally:
                    for file in files:
                        with contextlib.suppress(OSError):  # What found no room finds none now.
                            file.close()


def _answer(request: dict[str, Any], files: Sequence[BinaryIO], channel: socket.socket) -> dict[str, Any]:
    if "max_side" in request:
        return _render(request, files)
    clean, distorted = (
        io.BufferedReader(Slice(file.fileno(), start, size), 1 << 16)
        for file, (start, size) in zip(files[:2], request["slices"], strict=True)
    )
    limits = PairLimits(**request["limits"])

    def entering(side: str) -> None:
        _send(channel, {"entering": side})

    try:
        report, fixed = examine_pair(clean, distorted, limits, request["fixes"], entering)
    except RefusedPair as refused:
        return {"refused": [(side, reason, kind.code) for side, reason, kind in refused.refusals]}
    if fixed is not None:
        _write(fixed, files[2], files[3])
    return {"report": report, "fixed": fixed is not None}


def _render(request: dict[str, Any], files: Sequence[BinaryIO]) -> dict[str, Any]:
    try:
        render(files[0], request["max_pixels"], request["max_side"], files[1])
    except ServiceError as error:
        return {"refused": [("image", error.detail, error.code)]}
    files[1].flush()
    return {}


def _write(pair: FixedPair, clean: BinaryIO, distorted: BinaryIO) -> None:
    for picture, file in ((pair.clean, clean), (pair.distorted, distorted)):
        Image.fromarray(picture).save(file, "PNG", compress_level=1)
        file.flush()


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()

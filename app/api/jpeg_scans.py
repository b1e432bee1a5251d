"""The scans of a JPEG, found by its markers (ITU-T T.81, annex B) without decoding."""

import re
from typing import BinaryIO, Final

from app.core.errors import BadImage

# All markers but those that stand alone or that no decoder knows. Stuffed zeros, fill bytes and restarts are none.
MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
END_OF_IMAGE: Final = 0xD9
START_OF_SCAN: Final = 0xDA
MAX_SEGMENTS: Final = 10_000  # Half a gigabyte of full ones; cameras write some tens.
PIECE_BYTES: Final = 1 << 16


def find_scans(file: BinaryIO) -> tuple[int, bool]:
    """How many scans the image has, and whether its end comes behind them; the file stays where it was.

    What segments hold is skipped, such as a preview with scans of its own, and so is what comes behind the image, such
    as a phone's video or a second image. Raises BadImage for countless segments.
    """
    before = file.tell()
    try:
        return _find_scans(file)
    finally:
        file.seek(before)


def _find_scans(file: BinaryIO) -> tuple[int, bool]:
    scans, segments, position = 0, 0, 2
    while segments < MAX_SEGMENTS:
        file.seek(position)
        piece = file.read(PIECE_BYTES)
        found = MARKER.search(piece)
        if found is None:
            if len(piece) < 2:
                return scans, False
            position += len(piece) - 1  # The last byte may be the first of a marker.
            continue
        segments += 1
        position += found.end()
        marker = piece[found.end() - 1]
        if marker != END_OF_IMAGE:
            scans += marker == START_OF_SCAN
            file.seek(position)
            position += max(2, int.from_bytes(file.read(2), "big"))
        elif scans > 0:
            return scans, True
    raise BadImage(f"The JPEG has more than {MAX_SEGMENTS} segments.")

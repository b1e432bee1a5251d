"""The names that clients give to files: which letters may stand in them, and how answers show them."""

import unicodedata
from pathlib import PurePosixPath
from typing import Final

# Control characters, invisible ones (some turn the direction of what follows), halves of characters, ends of lines.
MISLEADING: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_plain(name: str) -> bool:
    """Whether the name shows all that is in it. Spaces of every width do; macOS puts one of them into screenshots'."""
    return not any(unicodedata.category(letter) in MISLEADING for letter in name)


def with_side(field: str, name: str) -> str:
    """The name of a pair's file in the folder of its side, as in a zip: both sides may be called the same."""
    if field not in {"clean", "distorted"} or PurePosixPath(name).parent.name.lower() == field:
        return name
    return f"{field}/{name}"

"""The names that clients give to files: which letters may stand in them."""

import unicodedata
from typing import Final

# Control characters, invisible ones (some turn the direction of what follows), halves of characters, ends of lines.
MISLEADING: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_plain(name: str) -> bool:
    """Whether the name shows all that is in it. Spaces of every width do; macOS puts one of them into screenshots'."""
    return not any(unicodedata.category(letter) in MISLEADING for letter in name)

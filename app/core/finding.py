"""What a check of the installation has found, and how it can be mended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One answer of one check, for people. A `note` is worth knowing, but nothing is wrong."""

    check: str  # stable, for programs
    state: State
    message: str
    advice: str = ""
    items: tuple[str, ...] = ()  # the rows, blobs or files that it is about
    mend: Callable[[], str] | None = None  # does it, and says what was done
    lossy: bool = False  # `mend` gives up something that a person may still want


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 job`, `2 jobs`; `things` is the plural where that is irregular."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"

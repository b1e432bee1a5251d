"""The `Prefer` header (RFC 7240): what a client would like, and a server may do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
# Preferences stand between commas outside of quotes. No character can be read in two ways here, and no blank below is
# given back, so the time is linear.
BETWEEN_COMMAS: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^,"])+')
# Parameters, behind semicolons, mean nothing here.
PREFERENCE: Final = re.compile(rf"[ \t]*+({WORD})[ \t]*+(?:=[ \t]*+({WORD}|{QUOTED})?)?[ \t]*+(?:;|$)")
LONGEST_NUMBER: Final = 9  # Digits; thirty years of seconds.


@dataclass(frozen=True)
class Preferences:
    """The preferences that this service knows. `wait_s` is None where none is given."""

    respond_async: bool = False
    wait_s: int | None = None


def preferences(lines: Sequence[str]) -> Preferences:
    """What the `Prefer` header fields ask for. What cannot be read or is unknown is ignored, as the RFC demands."""
    wishes = parsed(",".join(lines))
    wait = wishes.get("wait", "")
    readable = wait.isascii() and wait.isdecimal()
    return Preferences(
        respond_async="respond-async" in wishes,
        wait_s=int(wait[:LONGEST_NUMBER]) if readable else None,
    )


def parsed(field: str) -> dict[str, str]:
    """Every preference with its value, or with an empty one. Of a preference given twice, the first counts."""
    found: dict[str, str] = {}
    for part in BETWEEN_COMMAS.findall(field):
        if (match := PREFERENCE.match(part)) is not None:
            value = match[2] or ""
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            found.setdefault(match[1].lower(), value)
    return found

"""Options as the service takes them, by its names."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Option: TypeAlias = str | float | bool | Sequence[str] | None


def fields_of(options: Mapping[str, Option]) -> dict[str, str]:
    """Options as fields of a form or a query: lists between commas, and those left open left out."""
    return {name: _word(value) for name, value in options.items() if value is not None}


def _word(value: Option) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | float() | int():
            return str(value)
        case _:
            return ",".join(value or ())

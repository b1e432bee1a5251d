"""Where commands print: results on standard output, everything said beside them on standard error."""

import json
from typing import Any

from rich.console import Console, RenderableType

console = Console()
errors = Console(stderr=True)


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """A document for programs, on standard output at once."""
    print(json.dumps(document, indent=indent, ensure_ascii=False), flush=True)


def present(answer: Any, rendered: RenderableType, *, as_json: bool) -> None:
    """Print the service's answer for people, or as it came for programs."""
    if as_json:
        print_json(answer)
    else:
        console.print(rendered)

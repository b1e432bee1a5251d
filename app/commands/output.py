"""Where commands print: results on standard output, everything said beside them on standard error."""

import json
from typing import Any

from rich.console import Console, RenderableType

console = Console()
errors = Console(stderr=True)


def present(answer: Any, rendered: RenderableType, *, as_json: bool) -> None:
    """Print the service's answer for people, or as it came for programs."""
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        console.print(rendered)

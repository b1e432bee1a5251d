"""Where commands print: results on standard output, everything said beside them on standard error."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from app.failures import CommandFailed

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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises CommandFailed where what is done here finds that the path cannot be written."""
    try:
        yield
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror or error}") from error

"""Where commands print: results on standard output, everything said beside them on standard error."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType

from app.failures import CommandFailed

console = Console()
errors = Console(stderr=True)


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """A document for programs, on standard output at once."""
    print(json.dumps(document, indent=indent, ensure_ascii=False), flush=True)


def present(answer: Any, rendered: RenderableType, *, as_json: bool) -> None:
    """Print the service's answer for people, or as it came for programs.

    That a list is empty is said beside the results, of which there are none.
    """
    if as_json:
        print_json(answer)
    elif answer == []:
        errors.print(rendered, soft_wrap=True)
    else:
        console.print(rendered)


def confirm(question: str, *, yes: bool) -> None:
    """Ask whoever sits at a terminal before something is deleted; with `yes`, and of programs, nothing is asked.

    Raises typer.Abort where the answer is no.
    """
    if yes or not sys.stdin.isatty():
        return
    # Not typer's own, which leaves a blank on standard output.
    if errors.input(f"{question} [y/N] ", markup=False).strip().lower() not in {"y", "yes"}:
        raise typer.Abort


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises CommandFailed where what is done here finds that the path cannot be written."""
    try:
        yield
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror or error}") from error

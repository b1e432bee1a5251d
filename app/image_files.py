"""Which image files a command line means, and where their results go; nothing that exists is ever lost by it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drtl_client.pairs import PHOTOGRAPHS, RAW, SUFFIXES

MARK: Final = ".restored"
EXTENSIONS: Final = {"png": "png", "jpeg": "jpg", "webp": "webp", "tiff": "tif"}


@dataclass(frozen=True)
class Task:
    """One file to be made from another."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Left:
    """A file that is not restored, and why not."""

    source: Path
    reason: str


@dataclass
class Plan:
    """What will be done; `skipped` needs no work, `refused` cannot be done."""

    tasks: list[Task] = field(default_factory=list)
    skipped: list[Left] = field(default_factory=list)
    refused: list[Left] = field(default_factory=list)


def plan(inputs: Sequence[Path], output: Path, extension: str, *, overwrite: bool = False) -> Plan:
    """Files are taken as they are, of folders every image at any depth; results are named NAME.restored.EXTENSION.

    What comes from a folder is laid into a folder of the same name, as by `cp -r`. Of files that share a stem
    (a.png, a.jpg), each keeps its suffix in the result's name. No input is ever the target of another one's result,
    and without `overwrite` no result replaces a file.
    """
    made = Plan()
    found: dict[Path, tuple[Path, Path]] = {}  # A file that is given twice is restored once.
    for path in inputs:
        for source, folder in _images(path, output, made):
            found.setdefault(source.resolve(), (source, folder))
    stems = Counter((folder, source.stem) for source, folder in found.values())
    taken: dict[Path, Path] = {}
    for source, folder in found.values():
        name = source.stem if stems[folder, source.stem] == 1 else source.name
        target = folder / f"{name}{MARK}.{extension}"
        place = target.resolve()
        if place in found:
            made.refused.append(Left(source, f"its result would replace {target}, which is an input, too"))
        elif place in taken:
            made.refused.append(Left(source, f"its result would have the name of that of {taken[place]}"))
        elif target.exists() and not overwrite:
            made.skipped.append(Left(source, f"{target} exists (--overwrite replaces it)"))
        else:
            taken[place] = source
            made.tasks.append(Task(source, target))
    return made


def _images(path: Path, output: Path, made: Plan) -> Iterator[tuple[Path, Path]]:
    """The images that a path means, each with the folder of its result; what a folder holds besides goes to `made`."""
    if not path.is_dir():
        yield path, output
        return
    for file in sorted(path.rglob("*")):
        within = file.relative_to(path)
        if file.is_dir() or any(part.startswith(".") for part in within.parts):
            continue
        if file.suffix.lower() not in SUFFIXES:
            made.skipped.append(Left(file, _why_not(file.suffix)))
        elif Path(file.stem).suffix == MARK:
            made.skipped.append(Left(file, "the result of an earlier run"))
        else:
            yield file, output / path.resolve().name / within.parent


def _why_not(suffix: str) -> str:
    """Why files that end so are not restored."""
    if suffix.lower() in PHOTOGRAPHS | RAW:
        return f"{suffix[1:].upper()} is not a format that is read; convert it to PNG, TIFF or JPEG"
    return "no image, by its name"

"""`drtl pairs check`: what the pair doctor says of a folder of pairs, without a service."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.commands.output import writing
from app.failures import CommandFailed
from app.terminal import decibel
from drtl_client import PairPaths, pairs_in

pairs = typer.Typer(help="Few-shot pairs on this machine.", no_args_is_help=True)

console = Console()

FIXES: Final = ("swap", "crop", "align", "match_colour")
STYLE: Final = {"good": "green", "fixable": "yellow", "reject": "red"}


@pairs.callback()
def _group() -> None:
    """Keeps `check` a command of its own, though it is the only one."""


@pairs.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="A folder with clean/ and distorted/.")],
    fix: Annotated[str, typer.Option(help=f"Mend what needs it: {', '.join(FIXES)}; several between commas.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="Where pairs go, mended ones as PNG; needed by --fix.", file_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as they are.")] = False,
) -> None:
    """Examine pairs: alignment, exposure, sharpness, duplicates. Exits with 1 if one cannot be trained on."""
    fixes = [word.strip() for word in fix.split(",") if word.strip()]
    if unknown := [word for word in fixes if word not in FIXES]:
        raise CommandFailed(f"there is no fix named {unknown[0]}", f"choose from {', '.join(FIXES)}")
    if fixes and output is None:
        raise CommandFailed("--fix leaves your files as they are", "say with --output where the mended pairs should go")
    found = pairs_in(folder)
    if output is None:
        reports, summary = _examine(found, fixes, None)
    else:
        with writing(output):
            _require_room(folder, found, output)
            with _all_or_nothing(output) as made:
                reports, summary = _examine(found, fixes, made)
    if as_json:
        print(json.dumps({"summary": summary, "pairs": reports}, indent=2, ensure_ascii=False))
    else:
        console.print(_table(reports))
        console.print(summary, soft_wrap=True, highlight=False)
    if any(report["verdict"] == "reject" for report in reports):
        sys.exit(1)


def _require_room(folder: Path, found: list[PairPaths], output: Path) -> None:
    """Raise CommandFailed where writing the pairs there could replace a file, before anything is written."""
    choose = "choose another folder with --output"
    where = output.resolve()
    sides = {file.parent.resolve() for pair in found for file in (pair.clean, pair.distorted)}
    if where == folder.resolve() or any(where.is_relative_to(side) for side in sides):
        raise CommandFailed(f"{output} is where the pairs come from, and your files stay as they are", choose)
    for pair in found:
        for side, source in (("clean", pair.clean), ("distorted", pair.distorted)):
            for suffix in (source.suffix, ".png"):  # Which of them it will be is known when the pair has been examined.
                target = output / side / f"{pair.name}{suffix}"
                if target.exists() or target.is_symlink():
                    raise CommandFailed(f"{target} exists already, and is not replaced", choose)


@contextmanager
def _all_or_nothing(output: Path) -> Iterator[Path]:
    """A folder with what is to be in `output`. It goes there when all is done, and nothing does where that fails."""
    nearest = next(folder for folder in (output, *output.parents) if folder.is_dir())  # On the same disk, as a rule.
    with tempfile.TemporaryDirectory(prefix=".drtl-pairs-", dir=nearest) as made:
        yield Path(made)
        sides = [side.name for side in Path(made).iterdir()]
        for side in sides:
            (output / side).mkdir(parents=True, exist_ok=True)
        for side in sides:
            for file in (Path(made) / side).iterdir():
                shutil.move(file, output / side / file.name)


def _examine(found: list[PairPaths], fixes: Any, output: Path | None) -> tuple[list[dict[str, Any]], str]:
    """The report on each pair and on all of them; the pairs go to `output`.

    Files that cannot be used are an error of the whole command, which names all of them.
    """
    from app.api.pair_files import PairLimits, RefusedPair, examine_pair
    from app.core.settings import settings
    from app.doctor.report import mark_duplicates, summary

    limits = PairLimits(settings().max_pair_pixels, settings().min_pair_side, settings().max_scale)
    reports, refused = [], []
    for pair in found:
        try:
            with pair.clean.open("rb") as clean, pair.distorted.open("rb") as distorted:
                report, fixed = examine_pair(clean, distorted, limits, fixes)
        except RefusedPair as refusal:
            refused += [f"{getattr(pair, side)}: {reason}" for side, reason, _ in refusal.refusals]
        except OSError as error:
            refused.append(f"{error.filename or pair.name}: {error.strerror or error}")
        else:
            reports.append({"name": pair.name, **report})
            if output is not None and not refused:
                _write(pair, fixed, output)
    if refused:
        nothing = "" if output is None else ", and nothing is written"
        raise CommandFailed("\n  ".join([f"not all files can be used{nothing}:", *refused]))
    mark_duplicates([report["name"] for report in reports], reports)
    return reports, summary(reports, option="--fix ")


def _write(pair: PairPaths, fixed: Any, output: Path) -> None:
    from PIL import Image

    for side, source in (("clean", pair.clean), ("distorted", pair.distorted)):
        target = output / side
        target.mkdir(exist_ok=True)
        if fixed is None:
            (target / f"{pair.name}{source.suffix}").write_bytes(source.read_bytes())
        else:
            Image.fromarray(getattr(fixed, side)).save(target / f"{pair.name}.png")


def _table(reports: list[dict[str, Any]]) -> Table:
    table = Table("pair", "verdict", "PSNR", "aligned", "shift", "what there is to say")
    for report in reports:
        shift, fixed = report["shift_px"], report.get("fixed")
        said = report["note"]
        if fixed:
            before = fixed["before"]
            done = ", ".join(fixed["applied"]).replace("_", " ")
            said = f"[{done}: {decibel(before['psnr_db'])} before] {said}"
        table.add_row(
            report["name"],
            Text(report["verdict"], STYLE[report["verdict"]]),
            decibel(report["psnr_db"]),
            decibel(report["aligned_psnr_db"]),
            f"{shift['x']:+.1f}, {shift['y']:+.1f} px",
            Text(said),
        )
    return table

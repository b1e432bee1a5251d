"""`drtl doctor`: what is wrong with this installation, in plain words, and what is done about it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from app import installation
from app.commands.output import console, print_json
from app.core import consistency
from app.core.database import open_database, read_sessions, sessions
from app.core.finding import Finding
from app.core.settings import Settings, read_settings
from app.core.storages import open_storage

MARK: Final = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("problem", "red")}
CANNOT_BE_ASKED: Final = (SQLAlchemyError, OSError)


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without losing anything.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --repair: also give up what is lost, without being asked.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every blob and compare it with its hash.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Database, images, models and logs.")] = None,
) -> None:
    """Check this installation: the machine, the database, the stored files. The service may run or not.

    Exits with 0 where all is well or has been mended, with 1 where problems are left.
    """
    settings = read_settings() if data_dir is None else read_settings(data_dir=data_dir.resolve())
    outcomes: list[Outcome] = []
    for finding in examine(settings, repair=repair, deep=deep):
        outcome = treat(finding, repair=repair, yes=yes, ask=not as_json)
        outcomes.append(outcome)
        if not as_json:
            show(outcome)
    left = sum(outcome.is_left for outcome in outcomes)
    if as_json:
        print_json({"healthy": not left, "checks": [outcome.as_json() for outcome in outcomes]})
    else:
        console.print(conclusion(outcomes, left, repair=repair), highlight=False)
    raise typer.Exit(1 if left else 0)


@dataclass(frozen=True)
class Outcome:
    """A finding, and what was done about it."""

    finding: Finding
    repaired: str | None = None
    failed: str | None = None

    @property
    def is_left(self) -> bool:
        return self.finding.state == "problem" and self.repaired is None

    def as_json(self) -> dict[str, Any]:
        found = asdict(self.finding)
        found["repairable"] = found.pop("mend") is not None
        return found | {"repaired": self.repaired, "repair_failed": self.failed}


def examine(settings: Settings, *, repair: bool, deep: bool) -> Iterator[Finding]:
    """Machine, then schema, then data; the data only once the schema is the one that this release knows."""
    yield from installation.examine(settings)
    engine = existing_database(settings)
    if engine is None:
        yield Finding("database", "ok", "there is no database yet; drtl up makes one")
        return
    try:
        yield (found := schema(settings, engine))
        if found.state == "problem" and not (repair and schema(settings, engine).state == "ok"):
            yield Finding("data", "note", "The data was not looked at.", "Mend the database's schema first.")
            return
        storage = open_storage(settings)
        yield from consistency.examine(
            consistency.Holdings(settings, sessions(engine), read_sessions(engine), storage), deep=deep
        )
    except CANNOT_BE_ASKED as error:
        message = f"The database or the stored files cannot be read: {installation.last_line(str(error))}"
        yield Finding(
            "data",
            "problem",
            message,
            "Do both run, and are DRTL_DATABASE_URL, DRTL_BLOB_URL and rights right?",
        )
    finally:
        engine.dispose()


def existing_database(settings: Settings) -> Engine | None:
    """The database; None where it would be a SQLite file that is not there, which asking would make."""
    return None if absent_file(settings) else open_database(settings.database_url)


def absent_file(settings: Settings) -> Path | None:
    """Where the database's file would be; None where it is there, or is not a file."""
    url = make_url(settings.database_url)
    file = Path(url.database or "")
    return file if url.get_backend_name() == "sqlite" and not file.is_file() else None


def schema(settings: Settings, engine: Engine) -> Finding:
    """Whether the database has the schema that this release works with."""
    import migrations  # Brings Alembic.

    present, known = migrations.revision_of(engine), migrations.revisions()

    def migrate() -> str:
        migrations.migrate(settings.database_url)
        return f"migrated from {present or 'nothing'} to {known[0]}"

    if present == known[0]:
        return Finding("schema", "ok", f"database at revision {present}")
    if present is None or present in known:
        message = f"The database is at revision {present or 'none'}, this release needs {known[0]}."
        advice = "Make a backup, then migrate: python -m migrations, or the repair. drtl up does so, too."
        return Finding("schema", "problem", message, advice, mend=migrate)
    message = f"The database is at revision {present}, which this release does not know: a newer one made it."
    advice = (
        "The release before that one can go on with it, but this does not look at its data. Install the newer again."
    )
    return Finding("schema", "problem", message, advice)


def treat(finding: Finding, *, repair: bool, yes: bool, ask: bool) -> Outcome:
    """Mend it if that is wanted; what is lossy only with `yes`, or when a person says so."""
    if not repair or finding.mend is None:
        return Outcome(finding)
    if finding.lossy and not yes:
        if not (ask and console.is_terminal):
            return Outcome(finding)
        show(Outcome(finding))
        if not typer.confirm("         Give these up?"):
            return Outcome(finding)
    try:
        return Outcome(finding, repaired=finding.mend())
    except (*CANNOT_BE_ASKED, RuntimeError) as error:
        return Outcome(finding, failed=installation.last_line(str(error)))


def show(outcome: Outcome) -> None:
    finding = outcome.finding
    word, style = MARK[finding.state]
    console.print(Text.assemble((f"{word:>8} ", style), finding.message), soft_wrap=True, highlight=False)
    for item in finding.items:
        console.print(f"           {escape(item)}", soft_wrap=True, highlight=False, style="dim")
    if outcome.repaired is not None:
        console.print(Text.assemble(("repaired ", "green"), outcome.repaired), soft_wrap=True, highlight=False)
        return
    if finding.advice:
        console.print(f"         {escape(finding.advice)}", soft_wrap=True, highlight=False)
    if outcome.failed is not None:
        console.print(Text.assemble(("  failed ", "red"), outcome.failed), soft_wrap=True, highlight=False)


def conclusion(outcomes: list[Outcome], left: int, *, repair: bool) -> str:
    if not left:
        return "All is well."
    mendable = [outcome.finding for outcome in outcomes if outcome.is_left and outcome.finding.mend is not None]
    told = f"{left} problem{'s' if left != 1 else ''}."
    if not repair and any(not finding.lossy for finding in mendable):
        return f"{told} Some can be mended without loss: drtl doctor --repair"
    if any(finding.lossy for finding in mendable):
        return f"{told} What is lost can be given up: drtl doctor --repair --yes"
    return told

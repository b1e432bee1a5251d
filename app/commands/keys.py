"""`drtl keys …`: who may use the service. Works on the database itself, so that the first key needs no other."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.commands.doctor import absent_file
from app.commands.options import AsJson, DataDir
from app.commands.output import errors, present
from app.core import keys
from app.core.database import open_database, sessions
from app.core.errors import NotFound
from app.core.settings import read_settings
from app.core.shares import PRIORITIES
from app.core.tables import ApiKey, utc_now
from app.failures import CommandFailed
from app.listing import Listing

LONGEST_DAYS: Final = 36_500
LimitOption = Annotated[int | None, typer.Option(min=0, help="0 for none; otherwise the service's setting.")]


def create(
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists.")],
    scopes: Annotated[str, typer.Option(help="Any of read, train, infer, admin, between commas.")] = "read,train,infer",
    owner: Annotated[
        str | None, typer.Option(help="Whose things it opens; otherwise the name. Keys of one owner see the same.")
    ] = None,
    expires: Annotated[
        int | None, typer.Option(min=1, max=LONGEST_DAYS, help="Days until it ends; otherwise it does not.")
    ] = None,
    requests_per_minute: LimitOption = None,
    unfinished_jobs: LimitOption = None,
    pairs: LimitOption = None,
    megapixels_per_day: LimitOption = None,
    stored_bytes: LimitOption = None,
    priority: Annotated[
        str | None, typer.Option(help="The highest that its jobs may have: low, normal or high; otherwise the setting.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once: what is kept cannot be turned back into it."""
    given = {
        "requests_per_minute": requests_per_minute,
        "unfinished_jobs": unfinished_jobs,
        "pairs": pairs,
        "megapixels_per_day": megapixels_per_day,
        "stored_bytes": stored_bytes,
        "priority": priority,
    }
    if priority is not None and priority not in PRIORITIES:
        raise CommandFailed(f"priority: {priority!r} is none of {', '.join(PRIORITIES)}")
    limits = {what: limit for what, limit in given.items() if limit is not None}
    until = None if expires is None else utc_now() + timedelta(days=expires)
    asked = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with database(data_dir, may_be_made=True) as session:
        try:
            key, token = keys.create(session, name, asked, owner=owner, expires_at=until, limits=limits)
        except ValueError as error:
            raise CommandFailed(str(error)) from error
        session.commit()
        made = document(key) | {"key": token}
    if not as_json:
        errors.print("Keep it safe: it is shown this once. Clients read it from DRTL_KEY.", highlight=False)
    present(made, token, as_json=as_json)


def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Every key that was ever made, and what it may do."""
    with database(data_dir) as session:
        found = [document(key) for key in keys.list_keys(session)]
    present(found, table(found), as_json=as_json)


def revoke(
    key_id: Annotated[str, typer.Argument(help="The id: the middle part of the key, as `drtl keys list` shows it.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a key, within a second and for good. What its owner has made stays."""
    with database(data_dir) as session:
        try:
            key = keys.revoke(session, key_id)
        except NotFound as error:
            raise CommandFailed(str(error), "see what there is with: drtl keys list") from error
        session.commit()
        ended = document(key)
    present(ended, f"{key_id} ({ended['name']}) is revoked", as_json=as_json)


@contextmanager
def database(data_dir: Path | None, *, may_be_made: bool = False) -> Iterator[Session]:
    """A session on the database of the service that keeps its data there, or of this machine's settings.

    It is brought up to date where it is old. Raises CommandFailed where there is none, unless it may be made.
    """
    from migrations import migrate  # Alembic takes a while to load.

    where = read_settings() if data_dir is None else read_settings(data_dir=data_dir)
    if not may_be_made and (file := absent_file(where)) is not None:
        raise CommandFailed(
            f"there is no database in {file.parent}", "is --data-dir right? drtl up makes one, and drtl keys create"
        )
    url = where.database_url
    engine = None
    try:
        migrate(url)
        engine = open_database(url)
        with sessions(engine)() as session:
            yield session
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise CommandFailed(f"the database cannot be used: {reason}", "is DRTL_DATABASE_URL right?") from error
    finally:
        if engine is not None:
            engine.dispose()


def document(key: ApiKey) -> dict[str, Any]:
    """The key as JSON shows it; its secret is not among what is known."""
    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "scopes": key.scopes,
        "limits": key.limits,
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "last_used_at": _time(key.last_used_at),
        "usable": keys.is_usable(key),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def table(found: list[dict[str, Any]]) -> Listing | str:
    """The keys, a row each."""
    if not found:
        return "There is no key: the service is open to this machine, and to nobody else."
    rows = []
    for key in found:
        ended = "revoked" if key["revoked_at"] else "expired"
        state = ended if not key["usable"] else f"until {key['expires_at'][:10]}" if key["expires_at"] else "good"
        used = (key["last_used_at"] or "never")[:16].replace("T", " ")
        rows.append((key["id"], key["name"], key["owner"], ",".join(key["scopes"]), state, used))
    headings = ("id", "name", "owner", "scopes", "state", "last used")
    return Listing(headings, rows, folding={"name", "owner", "scopes", "state", "last used"})

"""The history of the database schema, and the one function that brings a database to a revision of it."""

import logging
import random
import time
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from app.core.database import open_database
from migrations.online import LOCK_TIMEOUT

log = logging.getLogger(__name__)

_ADVISORY_LOCK: Final = 0x6472_746D  # Any number that nothing else in the database locks, as claims do the one before.
_PATIENCE_S: Final = 600.0  # For locks that others hold.
_LOCK_NOT_AVAILABLE, _DEADLOCK = "55P03", "40P01"


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, independent of the working directory."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database to a revision, forward or back, and to the newest unless told otherwise.

    Several processes may call this at once: one migrates, the others wait and find nothing to do. One that is killed is
    followed by any other call. A database that a newer release has migrated is left as it is: that release has promised
    to let this one go on. Raises ValueError for an unknown revision, and OperationalError where somebody holds on to a
    table of a PostgreSQL database for longer than ten minutes.
    """
    engine = open_database(database_url)
    try:
        if engine.dialect.name == "sqlite":
            _migrate_file(engine, revision)
        else:
            _migrate_server(engine, revision)
    finally:
        engine.dispose()


def _migrate_file(engine: Engine, revision: str) -> None:
    """All in one transaction, of which there is one at a time.

    SQLite changes most things by copying a table and dropping the original. With foreign keys in force, the rows of
    other tables that belong to its rows would be dropped as well.
    """
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA foreign_keys=OFF")  # Of no effect inside a transaction.
        with connection.begin():
            _go(connection, revision)
            if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                raise IntegrityError("PRAGMA foreign_key_check", None, ValueError(f"rows without a parent: {broken}"))


def _migrate_server(engine: Engine, revision: str) -> None:
    """Step by step, beside everybody else; whoever is in the way is let pass, and the revision is tried again."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with engine.connect() as connection:
                _wait_for_turn(connection)
                connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
                connection.commit()
                _go(connection, revision)
                return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in {_LOCK_NOT_AVAILABLE, _DEADLOCK}:
                raise
            if time.monotonic() > deadline:
                raise
            log.warning("a table is in use, the migration tries again: %s", error.orig)
        finally:
            engine.dispose()  # What belongs to the session, the advisory lock first of all, ends with it.
        time.sleep(random.uniform(0.2, 1.0))


def _wait_for_turn(connection: Connection) -> None:
    """Take the advisory lock, by asking again and again.

    A statement that waits for it holds a snapshot, and the index that is being built meanwhile would wait for that.
    """
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_LOCK}):
        connection.rollback()
        time.sleep(0.1)
    connection.commit()


def _go(connection: Connection, revision: str) -> None:
    known = revisions()  # The newest first.
    target = known[0] if revision == "head" else revision
    if target not in [*known, "base"]:
        raise ValueError(f"revision: there is no {revision!r}; this release knows {', '.join(reversed(known))}")
    current = MigrationContext.configure(connection).get_current_revision()
    if connection.dialect.name != "sqlite":
        connection.rollback()  # Alembic begins a transaction for each revision.
    if current is not None and current not in known:
        log.warning("the database is at revision %s, of a newer release than this one: left as it is", current)
    elif target == "base" or (current is not None and known.index(target) > known.index(current)):
        command.downgrade(alembic_config(connection), target)
    else:
        command.upgrade(alembic_config(connection), target)


def revisions() -> list[str]:
    """Every revision that this release knows, the newest first."""
    return [revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


def revision_of(engine: Engine) -> str | None:
    """The revision of a database; None where it has no tables of ours."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()

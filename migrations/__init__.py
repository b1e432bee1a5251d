"""The history of the database schema, and the one function that brings a database up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from app.core.database import open_database

_ADVISORY_LOCK = 0x6472746C  # "drtl"; any number that nothing else in the database locks.


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, independent of the working directory."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(database_url: str) -> None:
    """Bring the database to the newest revision, in one transaction; a database that is there already is left alone.

    Several processes may call this at once: one migrates, the others wait and find nothing to do. On SQLite,
    BEGIN IMMEDIATE makes them wait; on PostgreSQL, an advisory lock does.
    """
    engine = open_database(database_url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            command.upgrade(alembic_config(connection), "head")
    finally:
        engine.dispose()


def revisions() -> list[str]:
    """Every revision that this release knows, the newest first."""
    return [revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


def revision_of(engine: Engine) -> str | None:
    """The revision of a database; None where it has no tables of ours."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()

"""What Alembic runs for every command; commands of its own CLI open the configured database themselves."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from app.core.database import open_database
from app.core.settings import settings
from app.core.tables import Table, UtcDateTime


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write our own column type as what it is in the database: a revision must not change when the code does."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    """Run the command on a connection.

    SQLite's DDL is transactional once the driver keeps its hands off (see `open_database`); Alembic assumes it is not.
    There the caller may have begun a transaction. On PostgreSQL each revision is committed by itself.
    """
    on_sqlite = connection.dialect.name == "sqlite"
    if not on_sqlite and connection.in_transaction():
        raise RuntimeError(
            "on PostgreSQL, revisions begin transactions of their own: use migrations.migrate(url, revision)"
        )
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        transactional_ddl=True,
        transaction_per_migration=not on_sqlite,
        render_item=render_item,
        render_as_batch=True,  # SQLite can alter few things in place.
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif context.is_offline_mode():
    context.configure(
        url=context.config.get_main_option("sqlalchemy.url") or settings().database_url,
        target_metadata=Table.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = open_database(settings().database_url)
    with engine.connect() as connection:
        run(connection)
    engine.dispose()

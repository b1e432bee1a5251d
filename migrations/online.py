"""Steps of a revision that let the api and the workers go on meanwhile (docs/adr/0027-online-migrations.md).

On PostgreSQL each step is committed by itself, holds strong locks for no longer than a change of the catalogue takes,
and is skipped or repeated without harm where it was done before: a revision that broke off is run again from its start.
So these steps come first in a revision; the plain operations behind them are one short transaction, in which the new
revision is noted as well. On SQLite, where a migration is one transaction, they are the plain operations.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import sqlalchemy as sa
from alembic import op

# Whoever waits for a strong lock holds up everybody who comes after. Less than PostgreSQL's deadlock_timeout, so that
# of a migration and a transaction that wait for each other it is the migration that gives way.
LOCK_TIMEOUT: Final = "500ms"
ROWS_AT_ONCE: Final = 5_000


def _on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


@contextmanager
def _alone(*, patient: bool = False) -> Iterator[None]:
    """Commit what was done before, and each statement of the block by itself.

    `patient` steps take only locks that hold up neither reads nor writes, and so may wait as long as they like.
    """
    with op.get_context().autocommit_block():
        if patient:
            op.execute("SET lock_timeout = 0")
        yield
        if patient:
            op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column that may be NULL or has a constant default, which rewrites no table.

    Where it may not be NULL the default has to stay: the release before goes on inserting rows without it.
    """
    if _on_postgresql():
        with _alone():
            op.add_column(table, column, if_not_exists=True)
    else:
        op.add_column(table, column)


def create_index(
    name: str, table: str, columns: Sequence[str], *, unique: bool = False, where: sa.TextClause | None = None
) -> None:
    """Build an index beside the writers."""
    if not _on_postgresql():
        op.create_index(name, table, columns, unique=unique, sqlite_where=where)
        return
    with _alone(patient=True):
        if _is_left_over(name):
            op.drop_index(name, table, postgresql_concurrently=True)
        op.create_index(
            name,
            table,
            columns,
            unique=unique,
            postgresql_where=where,
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def _is_left_over(index: str) -> bool:
    """Whether the index is what a migration that was killed has left of it: there, but never used."""
    if op.get_context().as_sql:
        return False
    query = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(op.get_bind().scalar(query, {"name": f'"{index}"'}))


def drop_index(name: str, table: str) -> None:
    """Drop an index without waiting for its readers with a strong lock in hand."""
    if _on_postgresql():
        with _alone(patient=True):
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
    else:
        op.drop_index(name, table)


def add_foreign_key(name: str, table: str, column: str, referred: str, *, ondelete: str | None = None) -> None:
    """Add the constraint for new rows at once, then check the old ones beside the writers."""
    if not _on_postgresql():
        with op.batch_alter_table(table) as altered:
            altered.create_foreign_key(name, referred, [column], ["id"], ondelete=ondelete)
        return
    action = f" ON DELETE {ondelete}" if ondelete else ""
    with _alone():
        op.execute(
            f"-- squawk-ignore ban-drop-constraint, prefer-robust-stmts\n"
            f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}, ADD CONSTRAINT {name}"
            f" FOREIGN KEY ({column}) REFERENCES {referred} (id){action} NOT VALID"
        )
    with _alone(patient=True):
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def require(table: str, column: str, kind: sa.types.TypeEngine[Any]) -> None:
    """Forbid NULL; the rows are looked through beside the writers."""
    if not _on_postgresql():
        with op.batch_alter_table(table) as altered:
            altered.alter_column(column, existing_type=kind, nullable=False)
        return
    check = f"ck_{table}_{column}_required"
    with _alone():
        op.execute(
            f"-- squawk-ignore ban-drop-constraint, prefer-robust-stmts\n"
            f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check},"
            f" ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID"
        )
    with _alone(patient=True):
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}")
    with _alone():
        # PostgreSQL believes the constraint, and scans nothing.
        op.execute(
            f"-- squawk-ignore adding-not-nullable-field, prefer-robust-stmts\n"
            f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"
        )
        op.execute(f"-- squawk-ignore ban-drop-constraint\nALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}")


def execute(statement: str) -> None:
    """Run a statement that may be repeated, by itself."""
    if _on_postgresql():
        with _alone():
            op.execute(statement)
    else:
        op.execute(statement)


def backfill(table: str, assignment: str, condition: str) -> None:
    """Set what `condition` finds, some rows at a time; the assignment must make the condition false."""
    update = f"UPDATE {table} SET {assignment} WHERE "  # noqa: S608 - a revision's own words
    if not _on_postgresql() or op.get_context().as_sql:
        op.execute(update + condition)
        return
    some = f"id IN (SELECT id FROM {table} WHERE {condition} LIMIT {ROWS_AT_ONCE})"  # noqa: S608
    with _alone():
        while op.get_bind().execute(sa.text(update + some)).rowcount:
            pass


def prepare_key(name: str, table: str, columns: Sequence[str]) -> None:
    """Build what `swap_key` then puts in the old key's place."""
    if _on_postgresql():
        create_index(f"{name}_next", table, columns, unique=True)


def swap_key(kind: Literal["primary", "unique"], name: str, table: str, columns: list[str]) -> None:
    """Give a primary key or unique constraint other columns. A plain operation: it belongs behind all steps."""
    if _on_postgresql():
        # The new key is there already, and the old one's guarantee is given up in the same transaction.
        op.execute(f"-- squawk-ignore ban-drop-constraint\nALTER TABLE {table} DROP CONSTRAINT {name}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {_SQL_OF[kind]} USING INDEX {name}_next")
        return
    with op.batch_alter_table(table) as altered:
        altered.drop_constraint(name, type_=kind)
        if kind == "primary":
            altered.create_primary_key(name, columns)
        else:
            altered.create_unique_constraint(name, columns)


_SQL_OF: Final = {"primary": "PRIMARY KEY", "unique": "UNIQUE"}


def prepare_index(name: str, table: str, columns: Sequence[str], *, unique: bool, where: sa.TextClause) -> None:
    """Build what `swap_index` then puts in the old index's place."""
    if _on_postgresql():
        create_index(f"{name}_next", table, columns, unique=unique, where=where)


def swap_index(name: str, table: str, columns: Sequence[str], *, unique: bool, where: sa.TextClause) -> None:
    """Give an index other columns. A plain operation: it belongs behind all steps."""
    if _on_postgresql():
        # Both are changes of the catalogue alone, and nobody asks for an index by its name.
        op.execute(f"-- squawk-ignore require-concurrent-index-deletion\nDROP INDEX {name}")
        op.execute(f"-- squawk-ignore renaming-object\nALTER INDEX {name}_next RENAME TO {name}")
    else:
        op.drop_index(name, table)
        op.create_index(name, table, columns, unique=unique, sqlite_where=where)

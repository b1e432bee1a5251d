"""The migrations make exactly the schema of the tables, on both databases, and undo it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from app.core.database import open_database
from app.core.tables import Table
from migrations import alembic_config, migrate
from tests.servers import create_postgres_database


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'drtl.sqlite3'}"
    return create_postgres_database(request.getfixturevalue("postgres_url"))


def table_names(url: str) -> set[str]:
    engine = open_database(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_autogenerate_finds_no_difference_after_migrating(empty_url: str) -> None:
    migrate(empty_url)
    engine = open_database(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_downgrading_leaves_nothing_and_upgrading_again_works(empty_url: str) -> None:
    migrate(empty_url)
    engine = open_database(empty_url)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    engine.dispose()
    assert table_names(empty_url) == {"alembic_version"}
    migrate(empty_url)
    assert table_names(empty_url) == {"alembic_version", *Table.metadata.tables}


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_url: str) -> None:
    engine = open_database(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE model_versions (x INTEGER)"))  # The last table that the revision makes.
    engine.dispose()
    with pytest.raises(Exception, match="model_versions"):
        migrate(empty_url)
    assert table_names(empty_url) == {"model_versions"}


def test_several_processes_may_migrate_at_once_from_anywhere(empty_url: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "DRTL_DATABASE_URL": empty_url, "PYTHONPATH": root}
    start = [sys.executable, "-m", "migrations"]
    processes = [subprocess.Popen(start, env=environment, cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints.decode()
    assert table_names(empty_url) == {"alembic_version", *Table.metadata.tables}

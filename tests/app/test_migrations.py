"""The migrations make exactly the schema of the tables, on both databases, and undo it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

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


def test_operations_and_keys_survive_the_way_to_batches_and_back(empty_url: str) -> None:
    engine = open_database(empty_url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for key, state, output in (("op_1", "queued", None), ("op_2", "succeeded", "b2")):
            connection.execute(
                text(
                    "INSERT INTO operations (id, created_at, model_name, model_version, input_blob, output_blob,"
                    " options, state, attempt) VALUES (:id, CURRENT_TIMESTAMP, 'm', 3, 'b1', :output, '{}', :state, 0)"
                ),
                {"id": key, "state": state, "output": output},
            )
        connection.execute(
            text(
                "INSERT INTO idempotency_keys (key, created_at, fingerprint, job_id)"
                " VALUES ('k', CURRENT_TIMESTAMP, 'f', 'job_1')"
            )
        )
        command.upgrade(alembic_config(connection), "head")
    assert rows_of(engine, "SELECT id, state, progress, turn, pixels, model_version FROM operations ORDER BY id") == [
        ("op_1", "queued", 0.0, 0.0, 0, 3),
        ("op_2", "succeeded", 1.0, 0.0, 0, 3),
    ]
    assert rows_of(engine, "SELECT key, made_id FROM idempotency_keys") == [("k", "job_1")]

    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO batches (id, created_at, model, options, cancel_requested)"
                " VALUES ('batch_1', CURRENT_TIMESTAMP, 'auto', '{}', false)"
            )
        )
        for key, state, blob, version in (
            ("op_3", "cancelled", "b3", 1),
            ("op_4", "queued", "b4", None),
            ("op_5", "failed", None, 1),
        ):
            connection.execute(
                text(
                    "INSERT INTO operations (id, batch_id, position, created_at, model_name, model_version, input_blob,"
                    " options, pixels, turn, progress, state, attempt) VALUES (:id, 'batch_1', 0, CURRENT_TIMESTAMP,"
                    " 'm', :version, :blob, '{}', 1, 1, 0, :state, 0)"
                ),
                {"id": key, "state": state, "blob": blob, "version": version},
            )
        command.downgrade(alembic_config(connection), "0001")
    assert rows_of(engine, "SELECT id, state, error_code, output_blob FROM operations ORDER BY id") == [
        ("op_1", "queued", None, None),
        ("op_2", "succeeded", None, "b2"),
        ("op_3", "failed", "cancelled", None),
    ]
    assert rows_of(engine, "SELECT key, job_id FROM idempotency_keys") == [("k", "job_1")]
    engine.dispose()


def test_what_was_made_before_owners_stays_on_the_way_there_and_back(empty_url: str) -> None:
    engine = open_database(empty_url)
    before = (
        "INSERT INTO datasets (id, created_at, scale) VALUES ('ds_1', CURRENT_TIMESTAMP, 1)",
        (
            "INSERT INTO jobs (id, name, dataset_id, options, state, progress, created_at, attempt)"
            " VALUES ('job_1', 'scanner', 'ds_1', '{}', 'queued', 0, CURRENT_TIMESTAMP, 0)"
        ),
        (
            "INSERT INTO model_versions (name, version, job_id, created_at, weights_blob, card)"
            " VALUES ('scanner', 1, 'job_1', CURRENT_TIMESTAMP, 'b1', '{}')"
        ),
        "INSERT INTO model_aliases (name, alias, version) VALUES ('scanner', 'production', 1)",
        (
            "INSERT INTO idempotency_keys (key, created_at, fingerprint, made_id)"
            " VALUES ('k', CURRENT_TIMESTAMP, 'f', 'job_1')"
        ),
    )
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0004")
        for statement in before:
            connection.execute(text(statement))
        command.upgrade(alembic_config(connection), "head")
        # As a tenant would have it: the same names again.
        for statement in (
            "INSERT INTO datasets (owner, id, created_at, scale) VALUES ('lab', 'ds_2', CURRENT_TIMESTAMP, 1)",
            (
                "INSERT INTO jobs (owner, id, name, dataset_id, options, state, progress, created_at, attempt)"
                " VALUES ('lab', 'job_2', 'scanner', 'ds_2', '{}', 'queued', 0, CURRENT_TIMESTAMP, 0)"
            ),
            (
                "INSERT INTO model_versions (owner, name, version, job_id, created_at, weights_blob, card)"
                " VALUES ('lab', 'scanner', 1, 'job_2', CURRENT_TIMESTAMP, 'b2', '{}')"
            ),
            "INSERT INTO model_aliases (owner, name, alias, version) VALUES ('lab', 'scanner', 'production', 1)",
            (
                "INSERT INTO idempotency_keys (owner, key, created_at, fingerprint, made_id)"
                " VALUES ('lab', 'k', CURRENT_TIMESTAMP, 'f', 'job_2')"
            ),
        ):
            connection.execute(text(statement))
        # As a worker of the release before would write.
        connection.execute(text("INSERT INTO model_aliases (name, alias, version) VALUES ('scanner', 'old', 1)"))
    owners = "SELECT owner, alias FROM model_aliases ORDER BY owner, alias"
    assert rows_of(engine, owners) == [("", "old"), ("", "production"), ("lab", "production")]
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0004")
    assert rows_of(engine, "SELECT id FROM jobs") == [("job_1",)]
    assert rows_of(engine, "SELECT name, weights_blob FROM model_versions") == [("scanner", "b1")]
    assert rows_of(engine, "SELECT key, made_id FROM idempotency_keys") == [("k", "job_1")]
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
    assert rows_of(engine, "SELECT owner, id FROM jobs") == [("", "job_1")]
    engine.dispose()


def test_jobs_stay_where_webhooks_come_and_go(empty_url: str) -> None:
    engine = open_database(empty_url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0005")
        for statement in (
            "INSERT INTO datasets (id, created_at, scale) VALUES ('ds_1', CURRENT_TIMESTAMP, 1)",
            (
                "INSERT INTO jobs (id, name, dataset_id, options, state, progress, created_at, attempt)"
                " VALUES ('job_1', 'scanner', 'ds_1', '{}', 'queued', 0, CURRENT_TIMESTAMP, 0)"
            ),
        ):
            connection.execute(text(statement))
        command.upgrade(alembic_config(connection), "0006")
        for statement in (
            (
                "INSERT INTO webhooks (id, created_at, url, events, description, key_fingerprint, generation)"
                " VALUES ('wh_1', CURRENT_TIMESTAMP, 'https://lab.example/', '[]', '', 'f', 1)"
            ),
            (
                "INSERT INTO webhook_deliveries (id, webhook_id, job_id, event, body, created_at, state, due_at,"
                " pending_since, attempt) VALUES ('msg_1', 'wh_1', 'job_1', 'job.failed', '{}', CURRENT_TIMESTAMP,"
                " 'pending', 0, 0, 0)"
            ),
            (
                "INSERT INTO webhook_attempts (delivery_id, number, created_at, seconds)"
                " VALUES ('msg_1', 1, CURRENT_TIMESTAMP, 0.1)"
            ),
        ):
            connection.execute(text(statement))
        command.downgrade(alembic_config(connection), "0005")
    assert rows_of(engine, "SELECT id, state FROM jobs") == [("job_1", "queued")]
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
    assert rows_of(engine, "SELECT id FROM webhooks") == []
    engine.dispose()


def rows_of(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


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

"""The migrations make exactly the schema of the tables, on both databases, and keep what is in it, there and back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy import Table as Stored
from sqlalchemy.exc import IntegrityError

from app.core import idempotency, jobs, operations, repository
from app.core.database import open_database, sessions
from app.core.tables import ApiKey, Dataset, Job, JobEvent, Operation, Pair, Table
from migrations import migrate, revision_of, revisions
from tests.app.migration_rows import STATES, blob, insert, insert_rows, rows_of, tables_of
from tests.servers import create_postgres_database

EARLIER = list(reversed(revisions()))[:-1]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'drtl.sqlite3'}"
    return create_postgres_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def empty_engine(empty_url: str) -> Iterator[Engine]:
    engine = open_database(empty_url)
    yield engine
    engine.dispose()


def table_names(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def differences(engine: Engine) -> list[object]:
    """What autogenerate would change to make the database's schema that of the tables."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Table.metadata))


def test_autogenerate_finds_no_difference_after_migrating(empty_url: str, empty_engine: Engine) -> None:
    migrate(empty_url)
    assert differences(empty_engine) == []


def test_downgrading_leaves_nothing_and_upgrading_again_works(empty_url: str, empty_engine: Engine) -> None:
    migrate(empty_url)
    migrate(empty_url, "base")
    assert table_names(empty_engine) == {"alembic_version"}
    migrate(empty_url)
    assert differences(empty_engine) == []


@pytest.mark.parametrize("revision", EARLIER)
def test_what_an_earlier_release_has_left_is_read_rightly_and_is_there_unchanged_after_the_way_back(
    revision: str, empty_url: str, empty_engine: Engine
) -> None:
    migrate(empty_url, revision)
    with empty_engine.begin() as connection:
        tables = tables_of(connection)
        insert_rows(connection, tables)
        before = rows_of(connection, tables)

    migrate(empty_url)
    read_as_the_service_does(empty_engine, before)

    migrate(empty_url, revision)
    with empty_engine.begin() as connection:
        assert set(tables_of(connection).tables) == set(tables.tables)
        assert rows_of(connection, tables) == before


def read_as_the_service_does(engine: Engine, before: dict[str, list[dict[str, object]]]) -> None:
    """The service's own queries and transitions on the rows of `tests.app.migration_rows`, without a commit."""
    with sessions(engine)() as session:
        for mapper in Table.registry.mappers:
            held = len(session.scalars(select(mapper.class_)).all())
            assert isinstance(mapper.local_table, Stored)
            assert held == len(before.get(mapper.local_table.name, [])), mapper.class_
        assert {job.id for job in repository.list_jobs(session, 10, None, None)} == {f"job_{state}" for state in STATES}
        assert [pair.report["shift"] for pair in repository.get_dataset(session, "ds_used").pairs] == [[0.5, -1]] * 2
        model = repository.resolve_model(session, "scanner", None)
        assert (model.version, model.weights_blob, model.card) == (1, blob("b1"), {"gamma": {"noise": 0.97}})
        assert repository.model_aliases(session, "scanner") == {"production": 1}
        assert len(repository.list_events(session, "job_succeeded", 0, 10)) == 2
        assert idempotency.begin(session, "k", "f", 60.0).made_id == "job_succeeded"
        named = {value for rows in before.values() for row in rows for name, value in row.items() if "_blob" in name}
        assert repository.referenced_blobs(session) == named - {None}

        lease = jobs.claim_next(session, "task", 60.0)
        assert lease is not None
        assert lease.job_id == "job_queued"
        assert jobs.recover_expired(session, 4) == {"job_running": "queued"}
        jobs.request_cancel(session, "job_running")
        assert session.get_one(Job, "job_running", populate_existing=True).state == "cancelled"
        image = operations.claim_next(session, 60.0)
        assert image is not None
        assert image.operation_id == "op_queued"
        assert session.get_one(Operation, "op_succeeded").progress == 1.0
        assert operations.recover_expired(session, 1) == {"op_running": "failed"}


def test_there_is_one_line_of_revisions_and_each_is_named_by_its_number() -> None:
    assert list(reversed(revisions())) == [f"{number:04d}" for number in range(1, len(revisions()) + 1)]


# Long and odd texts, and numbers at the limits of their types, on the one database that copies tables to change them.
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60), min_size=1, max_size=4
    ),
    facts=st.dictionaries(
        st.text(max_size=5), st.none() | st.floats(allow_nan=False) | st.text(max_size=9), max_size=3
    ),
    attempt=st.integers(0, 2**31 - 1),
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_and_no_number_is_changed_on_the_way_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], facts: dict[str, object], attempt: int
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('odd') / 'drtl.sqlite3'}"
    migrate(url, EARLIER[0])
    engine = open_database(url)
    with engine.begin() as connection:
        tables = tables_of(connection)
        insert(connection, tables.tables["datasets"], {"id": "ds"})
        for number, name in enumerate(names):
            job = {"id": f"job_{number}", "name": f"{number}{name}", "options": facts, "attempt": attempt}
            insert(connection, tables.tables["jobs"], job | {"state": "failed", "error_message": name})
            image = {"id": f"op_{number}", "model_name": name, "options": facts, "state": "failed", "attempt": attempt}
            insert(connection, tables.tables["operations"], image)
        before = rows_of(connection, tables)
    migrate(url)
    with sessions(engine)() as session:
        assert [job.error_message for job in session.scalars(select(Job).order_by(Job.id))] == names
        assert [job.options for job in session.scalars(select(Job))] == [facts] * len(names)
    migrate(url, EARLIER[0])
    with engine.begin() as connection:
        assert rows_of(connection, tables) == before
    engine.dispose()


def test_what_a_key_has_made_is_gone_on_the_way_back_before_keys_and_the_rest_stays(
    empty_url: str, empty_engine: Engine
) -> None:
    migrate(empty_url, "0005")
    with empty_engine.begin() as connection:
        tables = tables_of(connection)
        insert_rows(connection, tables)
        before = rows_of(connection, tables)
        # As a tenant would have it: the same names again.
        lab = {"owner": "lab"}
        insert(connection, tables.tables["datasets"], lab | {"id": "ds_lab"})
        insert(connection, tables.tables["pairs"], {"dataset_id": "ds_lab"})
        job = lab | {"id": "job_lab", "name": "scanner", "dataset_id": "ds_lab", "state": "queued"}
        insert(connection, tables.tables["jobs"], job)
        insert(connection, tables.tables["job_events"], {"job_id": "job_lab"})
        model = lab | {"name": "scanner", "version": 1, "job_id": "job_lab", "weights_blob": "b9"}
        insert(connection, tables.tables["model_versions"], model)
        insert(connection, tables.tables["model_aliases"], lab | {"name": "scanner", "alias": "production"})
        insert(connection, tables.tables["idempotency_keys"], lab | {"key": "k"})
        insert(connection, tables.tables["operations"], lab | {"id": "op_lab", "state": "queued"})
    migrate(empty_url, "0004")
    migrate(empty_url, "0005")
    with empty_engine.begin() as connection:
        assert rows_of(connection, tables) == before | {"api_keys": []}


def test_cancelled_images_are_failed_ones_before_there_was_a_word_for_them(
    empty_url: str, empty_engine: Engine
) -> None:
    migrate(empty_url, "0002")
    with empty_engine.begin() as connection:
        insert_rows(connection, tables_of(connection))
    migrate(empty_url, "0001")
    with empty_engine.connect() as connection:
        query = "SELECT id, state, error_code FROM operations ORDER BY id"
        assert [tuple(row) for row in connection.execute(text(query))] == [
            ("op_cancelled", "failed", "cancelled"),
            ("op_cancelling", "failed", "cancelled"),
            ("op_failed", "failed", "internal"),
            ("op_queued", "queued", None),
            ("op_running", "running", None),
            ("op_succeeded", "succeeded", None),
        ]


def test_a_job_keeps_its_events_and_its_model_where_its_table_is_copied(tmp_path: Path) -> None:
    """SQLite drops the original of a copied table, and with it, by the foreign keys, what belongs to its rows."""
    url = f"sqlite:///{tmp_path / 'drtl.sqlite3'}"
    migrate(url)
    engine = open_database(url)
    with engine.begin() as connection:
        insert_rows(connection, tables_of(connection))
    migrate(url, EARLIER[0])
    migrate(url)
    with sessions(engine)() as session:
        for table, number in ((JobEvent, 12), (Pair, 4), (Dataset, 2), (ApiKey, 0)):
            assert session.scalar(select(func.count()).select_from(table)) == number
    with engine.begin() as connection, pytest.raises(IntegrityError):
        connection.execute(text("DELETE FROM jobs"))  # Foreign keys are in force again.
    engine.dispose()


def test_jobs_stay_where_webhooks_come_and_go(empty_url: str, empty_engine: Engine) -> None:
    migrate(empty_url, "0006")
    with empty_engine.begin() as connection:
        insert_rows(connection, tables_of(connection))
        before = connection.execute(text("SELECT id, state FROM jobs ORDER BY id")).all()
        connection.execute(text("UPDATE webhook_deliveries SET job_id = 'job_failed'"))
    migrate(empty_url, "0005")
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT id, state FROM jobs ORDER BY id")).all() == before
    migrate(empty_url)
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM webhook_deliveries")).all() == []


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_url: str, empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE model_versions (x INTEGER)"))  # The last table that the revision makes.
    with pytest.raises(Exception, match="model_versions"):
        migrate(empty_url)
    assert table_names(empty_engine) == {"model_versions"}


def test_several_processes_may_migrate_at_once_from_anywhere(
    empty_url: str, empty_engine: Engine, tmp_path: Path
) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "DRTL_DATABASE_URL": empty_url, "PYTHONPATH": root}
    start = [sys.executable, "-m", "migrations"]
    processes = [subprocess.Popen(start, env=environment, cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints.decode()
    assert differences(empty_engine) == []


def test_a_database_that_a_newer_release_has_migrated_is_left_as_it_is(empty_url: str, empty_engine: Engine) -> None:
    """Or else nobody could go back to the release before without losing what the newer one has stored."""
    migrate(empty_url)
    with empty_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrate(empty_url)
    assert revision_of(empty_engine) == "9999"
    assert table_names(empty_engine) == {"alembic_version", *Table.metadata.tables}


def test_an_unknown_revision_is_refused(empty_url: str) -> None:
    with pytest.raises(ValueError, match="no '0815'"):
        migrate(empty_url, "0815")

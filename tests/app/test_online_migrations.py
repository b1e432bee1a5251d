"""On PostgreSQL a migration holds nobody up, whatever the service does meanwhile, and may be broken off anywhere."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, Engine, MetaData, Table, event, text
from sqlalchemy.exc import PendingRollbackError

import migrations
from app.core import jobs
from app.core import tables as schema
from app.core.database import open_database, sessions
from migrations import alembic_config, migrate, revisions
from tests.app.migration_rows import Row, blob, insert, insert_rows, rows_of, tables_of
from tests.servers import create_postgres_database, eventually

REVISIONS = list(reversed(revisions()))
STEPS = list(zip(["base", *REVISIONS], REVISIONS, strict=False))
# From the second revision on, the release before can go on with each (docs/upgrades.md). That one renames a column.
EXPANDING = [(before, after) for before, after in STEPS if before not in {"base", "0001"}]
MOST_S = 5.0  # A tenth of that is what a migration waits for a lock; the rest is for slow machines.


@pytest.fixture
def url(postgres_url: str) -> str:
    return create_postgres_database(postgres_url)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


def test_a_worker_claims_a_job_while_somebody_migrates(engine: Engine, url: str) -> None:
    """Or the index that is built meanwhile would wait for the claim, and the claim for whoever builds it."""
    migrate(url)
    with engine.connect() as migrating, sessions(engine).begin() as session:
        migrating.execute(text("SELECT pg_advisory_lock(:number)"), {"number": migrations._ADVISORY_LOCK})
        session.execute(text("SET LOCAL lock_timeout = '2s'"))
        assert jobs.claim_next(session, "task", 60.0) is None


def sql_of(before: str, after: str, *, back: bool = False) -> str:
    """What the revision would do, as SQL."""
    written = io.StringIO()
    config = alembic_config()
    config.output_buffer = written
    config.set_main_option("sqlalchemy.url", "postgresql+psycopg://")
    if back:
        command.downgrade(config, f"{after}:{before}", sql=True)
    else:
        command.upgrade(config, f"{before}:{after}", sql=True)
    return written.getvalue()


def complaints(sql: str, *allowed: str) -> str:
    """What squawk, a linter of migrations for PostgreSQL, finds in it."""
    excluded = [
        "require-lock-timeout",  # `migrate` sets it.
        "require-statement-timeout",  # An index that takes an hour to build takes an hour.
        "prefer-bigint-over-int",  # What is left are matters of taste.
        "prefer-identity",
        "prefer-text-field",
        *allowed,
    ]
    squawk = Path(sys.executable).with_name("squawk")
    ended = subprocess.run(
        [squawk, "--pg-version", "18.0", "--reporter", "gcc", f"--exclude={','.join(excluded)}"],
        input=sql,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode in {0, 1}, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_revision_locks_no_table_for_long_and_takes_nothing_from_the_release_before(before: str, after: str) -> None:
    # The second revision is older than the rule: the service has to stop for it.
    predates = ["ban-drop-not-null", "ban-drop-default", "renaming-column"] if after == "0002" else []
    assert complaints(sql_of(before, after), *predates) == ""


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_the_way_back_locks_no_table_for_long_either(before: str, after: str) -> None:
    undoing = ["ban-drop-column", "ban-drop-table", "ban-drop-constraint", "renaming-column"]
    assert complaints(sql_of(before, after, back=True), *undoing) == ""


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX i ON jobs (name);",
        "ALTER TABLE jobs ADD COLUMN x INTEGER NOT NULL;",
        "ALTER TABLE jobs ALTER COLUMN name SET NOT NULL;",
        "ALTER TABLE jobs ALTER COLUMN progress TYPE INTEGER;",
        "ALTER TABLE pairs ADD CONSTRAINT f FOREIGN KEY (name) REFERENCES jobs (id);",
        "ALTER TABLE jobs DROP COLUMN name;",
        "ALTER TABLE jobs ADD COLUMN x TIMESTAMP DEFAULT clock_timestamp();",
    ],
)
def test_what_would_hold_the_service_up_is_complained_about(statement: str) -> None:
    assert complaints(f"BEGIN;\n{statement}\nCOMMIT;") != ""


# ---- beside the service


@dataclass
class Traffic:
    """What the release of the tables does all the time, in threads, with the longest that any of it took."""

    engine: Engine
    tables: MetaData
    over: threading.Event = field(default_factory=threading.Event)
    slowest_s: float = 0.0
    rounds: int = 0
    errors: list[Exception] = field(default_factory=list)

    def table(self, name: str) -> Table:
        return self.tables.tables[name]

    def job(self, key: str) -> Iterator[Callable[[Connection], Any]]:
        """Upload, queue, claim, report, succeed; a transaction each."""
        jobs, models, aliases = self.table("jobs"), self.table("model_versions"), self.table("model_aliases")
        this = jobs.c.id == f"job_{key}"

        def upload(connection: Connection) -> None:
            insert(connection, self.table("datasets"), {"id": f"ds_{key}"})
            insert(connection, self.table("pairs"), {"dataset_id": f"ds_{key}", "position": 0})

        def queue(connection: Connection) -> None:
            row = {"id": f"job_{key}", "name": key, "dataset_id": f"ds_{key}", "state": "queued"}
            insert(connection, jobs, row)
            insert(connection, self.table("idempotency_keys"), {"key": key, "made_id": f"job_{key}"})

        def claim(connection: Connection) -> None:
            claimed = jobs.update().where(this, jobs.c.state == "queued").values(state="running", lease_token=key)
            assert connection.execute(claimed).rowcount == 1

        def report(connection: Connection) -> None:
            assert connection.execute(jobs.update().where(this).values(progress=0.5)).rowcount == 1
            insert(connection, self.table("job_events"), {"job_id": f"job_{key}"})

        def succeed(connection: Connection) -> None:
            connection.execute(jobs.update().where(this).values(state="succeeded", lease_token=None))
            model = {"name": key, "version": 1, "job_id": f"job_{key}", "weights_blob": blob(key)}
            insert(connection, models, model)
            insert(connection, aliases, {"name": key, "alias": "production", "version": 1})

        yield from (upload, queue, claim, report, succeed)
        yield lambda connection: connection.execute(jobs.select().order_by(jobs.c.id.desc()).limit(5)).all()
        yield lambda connection: connection.execute(models.select().where(models.c.name == key)).one()

    def image(self, key: str) -> Iterator[Callable[[Connection], Any]]:
        operations = self.table("operations")
        this = operations.c.id == f"op_{key}"
        row: Row = {"id": f"op_{key}", "state": "queued", "input_blob": blob(key)}
        yield lambda connection: insert(connection, operations, row)
        yield lambda connection: connection.execute(operations.update().where(this).values(state="succeeded"))
        yield lambda connection: connection.execute(operations.select().where(this)).one()

    def drive(self, name: str) -> None:
        number = 0
        try:
            while not self.over.is_set():
                number += 1
                for transaction in (*self.job(f"{name}-{number}"), *self.image(f"{name}-{number}")):
                    began = time.monotonic()
                    with self.engine.begin() as connection:
                        transaction(connection)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.rounds += 1
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for this thread
            self.errors.append(error)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Runs while the block does; raises what went wrong in it."""
        threads = [threading.Thread(target=self.drive, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: self.rounds > 2 or self.errors, what="traffic")
            yield
            seen = self.rounds
            eventually(lambda: self.rounds > seen + 2 or self.errors, what="traffic")
        finally:
            self.over.set()
            for thread in threads:
                thread.join()
        if self.errors:
            raise self.errors[0]


def fill(connection: Connection, tables: MetaData, number: int) -> None:
    """Enough rows for the way over them to take a while."""
    insert(connection, tables.tables["datasets"], {"id": "ds_many"})
    insert(connection, tables.tables["jobs"], {"id": "job_0", "dataset_id": "ds_many", "name": "n", "state": "failed"})
    insert(connection, tables.tables["operations"], {"id": "op_0", "state": "succeeded", "input_blob": blob("i")})
    for name, key in (("jobs", "job_0"), ("operations", "op_0")):
        others = ", ".join(column.name for column in tables.tables[name].columns if column.name != "id")
        connection.execute(
            text(
                f"INSERT INTO {name} (id, {others}) SELECT '{name}' || i, {others}"  # noqa: S608
                f" FROM {name}, generate_series(1, {number}) i WHERE id = '{key}'"
            )
        )


@pytest.mark.parametrize(("before", "after"), EXPANDING)
def test_the_release_before_goes_on_while_the_schema_goes_forward_and_back(
    before: str, after: str, url: str, engine: Engine, record_property: Callable[[str, object], None]
) -> None:
    migrate(url, before)
    with engine.begin() as connection:
        traffic = Traffic(engine, tables_of(connection))
        fill(connection, traffic.tables, 10_000)
    with traffic.flowing():
        for revision in (after, before, after):
            migrate(url, revision)
    record_property("slowest_s", traffic.slowest_s)
    print(f"{before} ⇄ {after}: {traffic.rounds} rounds, the slowest transaction took {traffic.slowest_s:.3f} s")
    assert traffic.slowest_s < MOST_S


def test_who_holds_a_table_for_long_delays_the_migration_and_nobody_else(url: str, engine: Engine) -> None:
    """A change of the catalogue waits for a long transaction, and all the world would wait behind it."""
    migrate(url, EXPANDING[0][0])
    with engine.begin() as connection:
        traffic = Traffic(engine, tables_of(connection))
    migration = threading.Thread(target=migrate, args=(url,))
    with psycopg.connect(url.replace("+psycopg", "")) as long, traffic.flowing():
        for table in traffic.tables.tables:
            long.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table)))
        migration.start()
        time.sleep(2.0)
        assert migration.is_alive()
        long.commit()
        migration.join(60)
        assert not migration.is_alive()
    assert traffic.slowest_s < MOST_S
    assert is_whole(engine)


# ---- broken off


def is_whole(engine: Engine) -> bool:
    """Whether the schema is the newest, with every index in use."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        left_over = connection.scalar(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid"))
        return compare_metadata(context, schema.Table.metadata) == [] and bool(left_over == 0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that handles errors handles it."""


@contextmanager
def killed_at(change: int) -> Iterator[None]:
    """Let a migration die when it is about to run its `change`th statement that changes something."""
    changes = ("CREATE", "ALTER", "DROP", "UPDATE", "INSERT", "DELETE", "--")
    seen = 0

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        seen += statement.lstrip().upper().startswith(changes)
        if seen == change:
            raise Killed

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", count)


@pytest.mark.parametrize(("before", "after"), STEPS[1:])
def test_a_migration_that_dies_at_a_statement_is_run_again_there_and_back(
    before: str, after: str, url: str, engine: Engine
) -> None:
    migrate(url, before)
    with engine.begin() as connection:
        tables = tables_of(connection)
        insert_rows(connection, tables)
        rows = rows_of(connection, tables)
    for target in (after, before):
        for change in range(1, 200, 3):  # Each third, for the time it takes.
            try:
                with killed_at(change):
                    migrate(url, target)
            except (Killed, PendingRollbackError):  # The latter where the driver's connection has died of it.
                continue
            break
        else:
            pytest.fail("it never came to its end")
    with engine.begin() as connection:
        assert rows_of(connection, tables) == rows
    migrate(url)
    assert is_whole(engine)


def test_an_index_whose_building_was_broken_off_is_built_anew(url: str, engine: Engine) -> None:
    """PostgreSQL leaves such an index where it is, keeps it up to date, and never uses it."""
    migrate(url, "0004")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        # Invalid at once, because two rows are equal; the way by a killed backend ends the same.
        connection.execute("ALTER TABLE jobs ADD COLUMN owner VARCHAR(64) NOT NULL DEFAULT ''")
        connection.execute("INSERT INTO datasets (id, created_at, scale) VALUES ('ds', now(), 1)")
        for key in ("job_1", "job_2"):
            connection.execute(
                "INSERT INTO jobs (id, name, dataset_id, options, state, progress, created_at, attempt)"
                " VALUES (%s, 'n', 'ds', '{}', 'failed', 0, now(), 0)",
                [key],
            )
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY ix_jobs_owner ON jobs (owner, name)")
    assert not is_whole(engine)
    migrate(url)
    assert is_whole(engine)

"""Opens the database: SQLite set up to be safe under several processes and power cuts, PostgreSQL as it comes."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection, ExceptionContext, make_url
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

LONGEST_SILENCE_S = 10  # Between two statements of one transaction; such pauses are milliseconds.
POOL: Final[dict[str, Any]] = {"pool_size": 10, "max_overflow": 20}
# A server that is gone, or whose network is, must not hold requests for minutes: libpq's words, in seconds, and the
# longest that sent data may stay unacknowledged in milliseconds.
GONE_AFTER: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def open_database(url: str) -> Engine:
    """An engine for `url`. SQLite gets WAL, a busy timeout and write locks taken at BEGIN.

    A deferred SQLite transaction that reads first and writes later can fail at once with "database is locked",
    busy timeout or not; BEGIN IMMEDIATE waits in line instead. Errors name no values of statements: they would go
    to the log, secrets and receivers' addresses among them.
    """
    if make_url(url).get_backend_name() != "sqlite":
        server = create_engine(url, pool_pre_ping=True, connect_args=GONE_AFTER, hide_parameters=True, **POOL)
        event.listen(server, "connect", end_when_quiet)
        event.listen(server, "handle_error", call_it_operational)
        return server
    database = make_url(url).database
    if database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    connecting = {"timeout": 30.0, "check_same_thread": False}
    engine = create_engine(url, connect_args=connecting, hide_parameters=True, **POOL)

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # The driver must not begin transactions of its own.
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_immediate(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("reads_only", False):
            connection.exec_driver_sql("BEGIN")
            return
        # FULL has every commit wait for the disk; NORMAL loses the last ones with the power, but never a part of one.
        connection.exec_driver_sql(f"PRAGMA synchronous={'NORMAL' if options.get('passing', False) else 'FULL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def end_when_quiet(connection: Any, _record: Any) -> None:
    """Have PostgreSQL end a transaction whose client has stopped in the middle, and holds rows that others need."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{LONGEST_SILENCE_S:d}s'")
    connection.commit()


def call_it_operational(context: ExceptionContext) -> None:
    """Raise OperationalError where the connection is gone: for a quiet client's, psycopg says InternalError."""
    if context.is_disconnect and isinstance(context.sqlalchemy_exception, InternalError):
        raise OperationalError(context.statement, None, context.original_exception) from context.original_exception


def sessions(engine: Engine) -> sessionmaker[Session]:
    """A factory of sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def passing_sessions(engine: Engine) -> sessionmaker[Session]:
    """A factory of sessions whose last commits a power cut may take, on SQLite: for what would be done again.

    They do not wait for the disk, and still outlast any process.
    """
    return sessions(engine.execution_options(passing=True))


def make_durable(session: Session) -> None:
    """Have all that was committed so far outlast a power cut, by passing sessions, too. PostgreSQL does so itself."""
    url = session.get_bind().engine.url
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    with suppress(FileNotFoundError):  # All has been moved from the log into the database, which was flushed for that.
        log = os.open(f"{url.database}-wal", os.O_RDONLY)
        try:
            os.fsync(log)
        finally:
            os.close(log)


def read_sessions(engine: Engine) -> sessionmaker[Session]:
    """A factory of sessions that only read: on SQLite they neither wait for a writer nor hold one up."""
    return sessions(engine.execution_options(reads_only=True))

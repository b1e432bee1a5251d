"""The database schema: what the service remembers."""

import secrets
import time
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    literal,
    text,
    type_coerce,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.core import origin

JobState = str  # queued, running, cancelling, succeeded, failed, cancelled
ACTIVE: Final = ("queued", "running", "cancelling")
ENDED: Final = ("succeeded", "failed", "cancelled")
PHASES: Final = ("validating", "embedding", "transferring", "fine_tuning", "evaluating", "registering")


def new_id(prefix: str) -> str:
    """A fresh identifier that sorts by creation time: prefix, milliseconds, randomness."""
    return f"{prefix}_{time.time_ns() // 1_000_000:011x}{secrets.token_hex(6)}"


def utc_now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware datetime in UTC, also on SQLite, which stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # PostgreSQL answers in the time zone of its session.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EventNumber(TypeDecorator[int]):
    """An INTEGER that may have been widened where so many would not do (see `event_numbers` in consistency.py)."""

    impl = Integer
    cache_ok = True

    def bind_expression(self, bindparam: BindParameter[int]) -> ColumnElement[int]:
        return type_coerce(bindparam, BigInteger)


class database_now(FunctionElement[float]):  # noqa: N801 - it reads as an SQL function where it is used
    """Seconds since the epoch by the database's clock, so that workers with wrong clocks agree on leases."""

    type = Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


class utc_ago(FunctionElement[datetime]):  # noqa: N801 - as above
    """The moment so many seconds ago by the database's clock, which is the one that ages are told by."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(literal(seconds, Float()))


@compiles(utc_ago, "sqlite")
def _sqlite_ago(element: utc_ago, compiler: SQLCompiler, **kw: Any) -> str:
    # With six digits of a second, as SQLAlchemy writes them: these are compared as texts.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', (-{compiler.process(element.clauses, **kw)}) || ' seconds')"


@compiles(utc_ago, "postgresql")
def _postgresql_ago(element: utc_ago, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(clock_timestamp() - {compiler.process(element.clauses, **kw)} * interval '1 second')"


class Table(DeclarativeBase):
    # Every constraint has a name, so that a later migration can address it on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


class Owned:
    """What belongs to somebody; `app.core.owners` hides it from all others.

    The empty name is the owner of what an open service makes, which asks nobody for a key. NULL would be no part of a
    primary key, and equal to nothing in a unique index.
    """

    owner: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))


class ApiKey(Table):
    """The right to use the service as an owner. Never deleted: a service that has had a key stays locked."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)  # The public part of the token.
    name: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(64))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    limits: Mapped[dict[str, Any]]  # What differs from the settings; see `app.core.keys.Limits`.
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # To the minute.


class Dataset(Owned, Table):
    """A set of few-shot pairs, stored whole or not at all."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_owner", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("ds"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    scale: Mapped[int] = mapped_column(Integer)
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of the files of all pairs
    pairs: Mapped[list["Pair"]] = relationship(order_by="Pair.position", lazy="selectin", cascade="all, delete-orphan")


class Pair(Table):
    """One clean image with its distorted version; the blobs hold the uploaded bytes unchanged."""

    __tablename__ = "pairs"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    clean_blob: Mapped[str] = mapped_column(String(64), index=True)
    distorted_blob: Mapped[str] = mapped_column(String(64), index=True)
    report: Mapped[dict[str, Any]]


class Job(Owned, Table):
    """A few-shot training. The row is the truth about it; a message to a worker is only a hint."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_state_created", "state", "id"),
        Index("ix_jobs_owner", "owner", "id"),
        # All that `app.core.training_queue` must know of the jobs that wait, in the order that it asks for.
        Index(
            "ix_jobs_waiting",
            "state",
            "owner",
            "rank",
            "id",
            "charge_s",
            "started_at",
            "work_s",
            # SQLite does not choose a partial index where another one begins with the state.
            postgresql_where=text("state = 'queued'"),
        ),
        # Two unfinished jobs of an owner cannot aim at the same model name.
        Index(
            "uq_jobs_active_name",
            "owner",
            "name",
            unique=True,
            sqlite_where=text("state IN ('queued', 'running', 'cancelling')"),
            postgresql_where=text("state IN ('queued', 'running', 'cancelling')"),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("job"))
    name: Mapped[str] = mapped_column(String(64))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    options: Mapped[dict[str, Any]]
    origin: Mapped[dict[str, Any] | None] = mapped_column(default=origin.current)  # None: older than the column.
    state: Mapped[JobState] = mapped_column(String(16), default="queued")
    phase: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    eta_s: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    # The queue's order; see `app.core.shares`.
    rank: Mapped[float] = mapped_column(Float, default=time.time, server_default="0")  # among its owner's
    work_s: Mapped[float] = mapped_column(Float, default=60.0, server_default="60")  # expected
    charge_s: Mapped[float] = mapped_column(Float, default=60.0, server_default="60")  # to its owner

    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_token: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float | None] = mapped_column(Float)  # database_now() seconds
    task_id: Mapped[str | None] = mapped_column(String(64))
    cancel_requested: Mapped[float | None] = mapped_column(Float)  # database_now() seconds
    checkpoint_blob: Mapped[str | None] = mapped_column(String(64))
    preview_blob: Mapped[str | None] = mapped_column(String(64))  # The best look so far at a held-out crop, as PNG.

    graph: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any] | None]
    verdict: Mapped[str | None] = mapped_column(String(32))  # gain, no_gain
    explanation: Mapped[str | None] = mapped_column(Text)
    model_version: Mapped[int | None] = mapped_column(Integer)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)


class TrainingShare(Table):
    """How far an owner's share of the training workers is used up; see `app.core.shares`. No tenant sees it."""

    __tablename__ = "training_shares"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    turn: Mapped[float] = mapped_column(Float)


class JobEvent(Table):
    """Something that happened to a job, in order; what `GET /v1/jobs/{id}/events` replays."""

    __tablename__ = "job_events"
    __table_args__ = (
        # For the sweep, which asks for the oldest of them; there are hundreds for each of the others.
        Index(
            "ix_job_events_progress",
            "id",
            sqlite_where=text("kind IN ('progress', 'preview')"),
            postgresql_where=text("kind IN ('progress', 'preview')"),
        ),
    )

    id: Mapped[int] = mapped_column(EventNumber, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_ago())
    kind: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]]


class ModelVersion(Owned, Table):
    """A trained model: weights in a blob, facts in its card. A job makes at most one."""

    __tablename__ = "model_versions"

    owner: Mapped[str] = mapped_column(
        String(64), primary_key=True, default="", server_default=text("''")
    )  # of the name
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_ago())
    weights_blob: Mapped[str] = mapped_column(String(64), index=True)
    onnx_blob: Mapped[str | None] = mapped_column(String(64), index=True)  # Made when somebody first asks for it.
    onnx_error: Mapped[str | None] = mapped_column(Text)  # Why the last attempt failed, until somebody has been told.
    card: Mapped[dict[str, Any]]


class ModelAlias(Owned, Table):
    """A movable name for one version; `production` is what super-resolution uses unless told otherwise."""

    __tablename__ = "model_aliases"

    owner: Mapped[str] = mapped_column(
        String(64), primary_key=True, default="", server_default=text("''")
    )  # of the name
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)


class Batch(Owned, Table):
    """Many images sent at once through one model. Its state is that of its operations, and is stored nowhere else."""

    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_owner", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("batch"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    model: Mapped[str] = mapped_column(String(160))  # As it was asked for: `name@version`, or `auto`.
    options: Mapped[dict[str, Any]]
    cancel_requested: Mapped[bool] = mapped_column(default=False)


class Operation(Owned, Table):
    """One image on its way through a model: sent alone, or as one of a batch."""

    __tablename__ = "operations"
    __table_args__ = (
        Index("ix_operations_state_turn", "state", "turn", "id"),
        Index("ix_operations_batch_position", "batch_id", "position"),
        Index("ix_operations_owner", "owner", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("op"))
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    position: Mapped[int | None] = mapped_column(Integer)  # in the batch
    file_name: Mapped[str | None] = mapped_column(String(255))  # in the batch
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    model_name: Mapped[str | None] = mapped_column(String(64))  # None until a worker has chosen one.
    model_version: Mapped[int | None] = mapped_column(Integer)
    input_blob: Mapped[str | None] = mapped_column(String(64), index=True)  # None for a file that was refused.
    output_blob: Mapped[str | None] = mapped_column(String(64), index=True)
    trust_blob: Mapped[str | None] = mapped_column(String(64), index=True)
    options: Mapped[dict[str, Any]]
    origin: Mapped[dict[str, Any] | None] = mapped_column(default=origin.current)  # as a job's
    pixels: Mapped[int] = mapped_column(BigInteger, default=0)  # of the input
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of the input's file
    turn: Mapped[float] = mapped_column(Float, default=time.time)  # The queue's order; see `app.core.turns`.
    state: Mapped[str] = mapped_column(String(16), default="queued")  # as a job's
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_token: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float | None] = mapped_column(Float)  # database_now() seconds
    cancel_requested: Mapped[float | None] = mapped_column(Float)  # database_now() seconds
    result: Mapped[dict[str, Any] | None]  # media_type, width, height, depth, tile, precision, match, seconds, …
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)


class IdempotencyKey(Owned, Table):
    """A client's promise that equal keys mean one request; holds the answer once there is one."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("owner", "key", name="uq_idempotency_key"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    fingerprint: Mapped[str] = mapped_column(String(64))
    made_id: Mapped[str | None] = mapped_column(String(40))  # None while the first request is still being answered


class Webhook(Owned, Table):
    """An address that hears of an owner's jobs. Its secret is derived from the service's key, and kept nowhere."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_owner", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("wh"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    url: Mapped[str] = mapped_column(String(2048))
    events: Mapped[list[Any]]
    description: Mapped[str] = mapped_column(String(255), default="")
    key_fingerprint: Mapped[str] = mapped_column(String(16))  # of the service's key that the secrets are made of
    generation: Mapped[int] = mapped_column(Integer, default=1)  # of the secret
    previous_secret_until: Mapped[datetime | None]  # Until then the generation before signs, too.
    failing_since: Mapped[datetime | None]  # The first failure after the last success.
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class WebhookDelivery(Owned, Table):
    """A message to a webhook, written together with what it tells of; it goes out until it arrives or is given up."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_due", "state", "due_at"),
        Index("ix_webhook_deliveries_order", "webhook_id", "job_id", "sequence"),
        Index("ix_webhook_deliveries_list", "webhook_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("msg"))
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    sequence: Mapped[int | None] = mapped_column(EventNumber)  # The job event's id; None for what keeps no order.
    event: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(Text)  # As it is signed, to the byte.
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    state: Mapped[str] = mapped_column(String(16), default="pending")  # pending, delivered, failed
    due_at: Mapped[float] = mapped_column(Float)  # database_now() seconds, as all that follow
    pending_since: Mapped[float] = mapped_column(Float)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_token: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float | None] = mapped_column(Float)
    finished_at: Mapped[datetime | None]
    attempts: Mapped[list["WebhookAttempt"]] = relationship(
        order_by="WebhookAttempt.number", lazy="selectin", cascade="all, delete-orphan", passive_deletes=True
    )


class WebhookAttempt(Table):
    """What came of one request to a receiver. An attempt whose worker died has none."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    seconds: Mapped[float] = mapped_column(Float)
    status: Mapped[int | None] = mapped_column(Integer)  # of HTTP
    error: Mapped[str | None] = mapped_column(Text)
    excerpt: Mapped[str | None] = mapped_column(Text)  # The beginning of the answer's body.

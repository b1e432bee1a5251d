"""Keys, and an owner for everything that is made; model names and idempotency keys are each owner's own.

Every column has a constant default that stays: PostgreSQL then adds it without rewriting the table, and a worker of
the release before can go on inserting rows, which belong to the open service as everything did until now.
"""

import sqlalchemy as sa
from alembic import op

from migrations import online

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("state IN ('queued', 'running', 'cancelling')")
BY_ID = ("datasets", "jobs", "batches", "operations")
BY_NAME = {"model_versions": ["name", "version"], "model_aliases": ["name", "alias"]}
UPLOADS = ("datasets", "operations")
# Children before their parents.
PARTS = {"pairs": ("dataset_id", "datasets"), "job_events": ("job_id", "jobs")}  # They belong to whoever has the whole.
OWNED = ("model_aliases", "model_versions", "idempotency_keys", "operations", "batches", "jobs", "datasets")


def owner() -> sa.Column[str]:
    return sa.Column("owner", sa.String(length=64), nullable=False, server_default=sa.text("''"))


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        if_not_exists=True,
    )
    for table in OWNED:
        online.add_column(table, owner())
    for table in UPLOADS:
        online.add_column(table, sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    for table in BY_ID:
        online.create_index(f"ix_{table}_owner", table, ["owner", "id"])
    for table, name in BY_NAME.items():
        online.prepare_key(f"pk_{table}", table, ["owner", *name])
    online.prepare_key("uq_idempotency_key", "idempotency_keys", ["owner", "key"])
    online.prepare_index("uq_jobs_active_name", "jobs", ["owner", "name"], unique=True, where=UNFINISHED)

    for table, name in BY_NAME.items():
        online.swap_key("primary", f"pk_{table}", table, ["owner", *name])
    online.swap_key("unique", "uq_idempotency_key", "idempotency_keys", ["owner", "key"])
    online.swap_index("uq_jobs_active_name", "jobs", ["owner", "name"], unique=True, where=UNFINISHED)


def downgrade() -> None:
    # Without owners everybody would see everything, under names that several may have. What belongs to a key goes; the
    # open service's things stay. (Weights and images go with the next sweep.)
    for part, (column, whole) in PARTS.items():  # SQLite migrates with foreign keys off, so nothing goes by itself.
        others = f"SELECT id FROM {whole} WHERE owner <> ''"  # noqa: S608 - our own tables
        online.execute(f"DELETE FROM {part} WHERE {column} IN ({others})")  # noqa: S608 - our own tables
    for table in OWNED:
        online.execute(f"DELETE FROM {table} WHERE owner <> ''")  # noqa: S608 - our own tables
    for table, name in BY_NAME.items():
        online.prepare_key(f"pk_{table}", table, name)
    online.prepare_key("uq_idempotency_key", "idempotency_keys", ["key"])
    online.prepare_index("uq_jobs_active_name", "jobs", ["name"], unique=True, where=UNFINISHED)
    for table in BY_ID:
        online.drop_index(f"ix_{table}_owner", table)

    for table, name in BY_NAME.items():
        online.swap_key("primary", f"pk_{table}", table, name)
    online.swap_key("unique", "uq_idempotency_key", "idempotency_keys", ["key"])
    online.swap_index("uq_jobs_active_name", "jobs", ["name"], unique=True, where=UNFINISHED)
    for table in UPLOADS:
        op.drop_column(table, "stored_bytes")
    for table in OWNED:
        op.drop_column(table, "owner")
    op.drop_table("api_keys")

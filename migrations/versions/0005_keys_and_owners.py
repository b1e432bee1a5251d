"""Keys, and an owner for everything that is made; model names and idempotency keys are each owner's own.

Every column has a constant default that stays: PostgreSQL then adds it without rewriting the table, and a worker of
the release before can go on inserting rows, which belong to the open service as everything did until now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("state IN ('queued', 'running', 'cancelling')")
BY_ID = ("datasets", "jobs", "batches", "operations")
BY_NAME = {"model_versions": ["name", "version"], "model_aliases": ["name", "alias"]}
UPLOADS = ("datasets", "operations")


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
    )
    for table in BY_ID:
        op.add_column(table, owner())
        op.create_index(f"ix_{table}_owner", table, ["owner", "id"])
    for table in UPLOADS:
        op.add_column(table, sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    for table, name in BY_NAME.items():
        with op.batch_alter_table(table) as altered:
            altered.add_column(owner())
            altered.drop_constraint(f"pk_{table}", type_="primary")
            altered.create_primary_key(f"pk_{table}", ["owner", *name])
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.add_column(owner())
        keys.drop_constraint("uq_idempotency_key", type_="unique")
        keys.create_unique_constraint("uq_idempotency_key", ["owner", "key"])
    op.drop_index("uq_jobs_active_name", "jobs")
    op.create_index(
        "uq_jobs_active_name",
        "jobs",
        ["owner", "name"],
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )


def downgrade() -> None:
    # Without owners everybody would see everything, under names that several may have. What belongs to a key goes; the
    # open service's things stay. (Weights and images go with the next sweep.)
    op.execute("DELETE FROM model_aliases WHERE owner <> ''")
    op.execute("DELETE FROM model_versions WHERE owner <> ''")
    op.execute("DELETE FROM idempotency_keys WHERE owner <> ''")
    op.execute("DELETE FROM operations WHERE owner <> ''")
    op.execute("DELETE FROM batches WHERE owner <> ''")
    op.execute("DELETE FROM jobs WHERE owner <> ''")
    op.execute("DELETE FROM datasets WHERE owner <> ''")

    op.drop_index("uq_jobs_active_name", "jobs")
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.drop_constraint("uq_idempotency_key", type_="unique")
        keys.drop_column("owner")
        keys.create_unique_constraint("uq_idempotency_key", ["key"])
    for table, name in BY_NAME.items():
        with op.batch_alter_table(table) as altered:
            altered.drop_constraint(f"pk_{table}", type_="primary")
            altered.drop_column("owner")
            altered.create_primary_key(f"pk_{table}", name)
    for table in UPLOADS:
        op.drop_column(table, "stored_bytes")
    for table in BY_ID:
        op.drop_index(f"ix_{table}_owner", table)
        op.drop_column(table, "owner")
    op.create_index(
        "uq_jobs_active_name", "jobs", ["name"], unique=True, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED
    )
    op.drop_table("api_keys")

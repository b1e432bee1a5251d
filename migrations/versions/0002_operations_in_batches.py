"""Operations can be cancelled, followed, explained and sent in batches; idempotency keys serve batches too."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations import online

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


INDEXES = {
    "ix_operations_state_turn": ["state", "turn", "id"],
    "ix_operations_batch_position": ["batch_id", "position"],
    "ix_operations_trust_blob": ["trust_blob"],
}
OPTIONAL: dict[str, sa.types.TypeEngine[Any]] = {
    "model_name": sa.String(length=64),
    "model_version": sa.Integer(),
    "input_blob": sa.String(length=64),
}


def columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("batch_id", sa.String(length=40), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("file_name", sa.String(length=255), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trust_blob", sa.String(length=64), nullable=True),
        sa.Column("cancel_requested", sa.Float(), nullable=True),
        # What is queued already is first in line.
        sa.Column("pixels", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("turn", sa.Float(), nullable=False, server_default="0"),
        sa.Column("progress", sa.Float(), nullable=False, server_default="0"),
    )


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(length=160), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        if_not_exists=True,
    )
    for added in columns():
        online.add_column("operations", added)
    online.backfill("operations", "progress = 1", "state = 'succeeded' AND progress <> 1")
    online.add_foreign_key("fk_operations_batch_id", "operations", "batch_id", "batches", ondelete="CASCADE")
    for name, indexed in INDEXES.items():
        online.create_index(name, "operations", indexed)
    online.drop_index("ix_operations_state_created", "operations")

    with op.batch_alter_table("operations") as operations:
        for column, kind in OPTIONAL.items():
            operations.alter_column(column, existing_type=kind, nullable=True)
        # What is written from now on sets these itself.
        operations.alter_column("pixels", existing_type=sa.BigInteger(), server_default=None)
        operations.alter_column("turn", existing_type=sa.Float(), server_default=None)
        operations.alter_column("progress", existing_type=sa.Float(), server_default=None)
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.alter_column("job_id", new_column_name="made_id", existing_type=sa.String(length=40))


def downgrade() -> None:
    # The first schema has no place for batches' answers, refused files and unchosen models, nor a word for cancelled.
    online.execute("DELETE FROM idempotency_keys WHERE made_id LIKE 'batch_%'")
    online.execute("DELETE FROM operations WHERE model_name IS NULL OR model_version IS NULL OR input_blob IS NULL")
    online.execute(
        "UPDATE operations SET state = 'failed', error_code = 'cancelled', error_message = 'It was cancelled.',"
        " lease_token = NULL, lease_until = NULL, finished_at = COALESCE(finished_at, CURRENT_TIMESTAMP)"
        " WHERE state IN ('cancelling', 'cancelled')"
    )
    for column, kind in OPTIONAL.items():
        online.require("operations", column, kind)
    for name in INDEXES:
        online.drop_index(name, "operations")
    online.create_index("ix_operations_state_created", "operations", ["state", "id"])

    with op.batch_alter_table("operations") as operations:
        operations.drop_constraint("fk_operations_batch_id", type_="foreignkey")
        for added in columns():
            operations.drop_column(added.name)
    op.drop_table("batches")
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.alter_column("made_id", new_column_name="job_id", existing_type=sa.String(length=40))

"""Operations can be cancelled, followed, explained and sent in batches; idempotency keys serve batches too."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(length=160), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )

    op.drop_index("ix_operations_state_created", "operations")
    with op.batch_alter_table("operations") as operations:
        operations.add_column(sa.Column("batch_id", sa.String(length=40), nullable=True))
        operations.add_column(sa.Column("position", sa.Integer(), nullable=True))
        operations.add_column(sa.Column("file_name", sa.String(length=255), nullable=True))
        operations.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
        operations.add_column(sa.Column("trust_blob", sa.String(length=64), nullable=True))
        operations.add_column(sa.Column("cancel_requested", sa.Float(), nullable=True))
        # What is queued already is first in line.
        operations.add_column(sa.Column("pixels", sa.BigInteger(), nullable=False, server_default="0"))
        operations.add_column(sa.Column("turn", sa.Float(), nullable=False, server_default="0"))
        operations.add_column(sa.Column("progress", sa.Float(), nullable=False, server_default="0"))
        operations.alter_column("model_name", existing_type=sa.String(length=64), nullable=True)
        operations.alter_column("model_version", existing_type=sa.Integer(), nullable=True)
        operations.alter_column("input_blob", existing_type=sa.String(length=64), nullable=True)
        operations.create_foreign_key("fk_operations_batch_id", "batches", ["batch_id"], ["id"], ondelete="CASCADE")
    op.execute("UPDATE operations SET progress = 1 WHERE state = 'succeeded'")
    # What is written from now on sets these itself.
    with op.batch_alter_table("operations") as operations:
        operations.alter_column("pixels", existing_type=sa.BigInteger(), server_default=None)
        operations.alter_column("turn", existing_type=sa.Float(), server_default=None)
        operations.alter_column("progress", existing_type=sa.Float(), server_default=None)
    op.create_index("ix_operations_state_turn", "operations", ["state", "turn", "id"])
    op.create_index("ix_operations_batch_position", "operations", ["batch_id", "position"])
    op.create_index("ix_operations_trust_blob", "operations", ["trust_blob"])

    with op.batch_alter_table("idempotency_keys") as keys:
        keys.alter_column("job_id", new_column_name="made_id", existing_type=sa.String(length=40))


def downgrade() -> None:
    # The first schema has no place for batches' answers, refused files and unchosen models, nor a word for cancelled.
    op.execute("DELETE FROM idempotency_keys WHERE made_id LIKE 'batch_%'")
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.alter_column("made_id", new_column_name="job_id", existing_type=sa.String(length=40))

    op.execute("DELETE FROM operations WHERE model_name IS NULL OR model_version IS NULL OR input_blob IS NULL")
    op.execute(
        "UPDATE operations SET state = 'failed', error_code = 'cancelled', error_message = 'It was cancelled.',"
        " lease_token = NULL, lease_until = NULL, finished_at = COALESCE(finished_at, CURRENT_TIMESTAMP)"
        " WHERE state IN ('cancelling', 'cancelled')"
    )
    for index in ("ix_operations_state_turn", "ix_operations_batch_position", "ix_operations_trust_blob"):
        op.drop_index(index, "operations")
    with op.batch_alter_table("operations") as operations:
        operations.drop_constraint("fk_operations_batch_id", type_="foreignkey")
        for column in (
            "batch_id",
            "position",
            "file_name",
            "started_at",
            "trust_blob",
            "cancel_requested",
            "pixels",
            "turn",
            "progress",
        ):
            operations.drop_column(column)
        operations.alter_column("model_name", existing_type=sa.String(length=64), nullable=False)
        operations.alter_column("model_version", existing_type=sa.Integer(), nullable=False)
        operations.alter_column("input_blob", existing_type=sa.String(length=64), nullable=False)
    op.create_index("ix_operations_state_created", "operations", ["state", "id"])
    op.drop_table("batches")

"""Shares of the training workers: an owner's turn, a job's rank and what is expected of it.

The constant defaults stay: an api of the release before can go on inserting jobs, which then come first among their
owner's, as jobs of a minute; its workers do not charge anybody.
"""

import sqlalchemy as sa
from alembic import op

from migrations import online

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

EPOCH = {
    "postgresql": "extract(epoch from created_at)::float8",
    "sqlite": "(julianday(created_at) - 2440587.5) * 86400.0",
}
COLUMNS = {"rank": "0", "work_s": "60", "charge_s": "60"}


def upgrade() -> None:
    for name, default in COLUMNS.items():
        online.add_column("jobs", sa.Column(name, sa.Float(), nullable=False, server_default=default))
    # Those that wait keep their order. (`paper` and `standard` are rarer than their work is worth a guess.)
    dialect = op.get_context().dialect.name
    epoch = EPOCH[dialect]
    online.backfill("jobs", f"rank = {epoch}", "rank = 0 AND state IN ('queued', 'running', 'cancelling')")
    online.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["state", "owner", "rank", "id", "charge_s", "started_at", "work_s"],
        # SQLite does not choose a partial index where another one begins with the state.
        where=sa.text("state = 'queued'") if dialect == "postgresql" else None,
    )
    op.create_table(
        "training_shares",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("turn", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_training_shares"),
    )


def downgrade() -> None:
    online.drop_index("ix_jobs_waiting", "jobs")
    op.drop_table("training_shares")
    for name in COLUMNS:
        op.drop_column("jobs", name)

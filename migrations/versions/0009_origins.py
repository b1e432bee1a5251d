"""The request that a job or an operation came from: its id and its trace, for logs and spans of every attempt."""

import sqlalchemy as sa
from alembic import op

from migrations import online

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("jobs", "operations")


def upgrade() -> None:
    for table in TABLES:
        online.add_column(table, sa.Column("origin", sa.JSON(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "origin")

"""What a training looks like while it runs: the blob of a job's preview."""

import sqlalchemy as sa
from alembic import op

from migrations import online

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    online.add_column("jobs", sa.Column("preview_blob", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "preview_blob")

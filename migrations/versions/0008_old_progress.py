"""An index of the events that only tell of a job's progress, so that the sweep finds the oldest at once."""

import sqlalchemy as sa

from migrations import online

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    online.create_index(
        "ix_job_events_progress", "job_events", ["id"], where=sa.text("kind IN ('progress', 'preview')")
    )


def downgrade() -> None:
    online.drop_index("ix_job_events_progress", "job_events")

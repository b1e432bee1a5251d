"""Models may have an ONNX file beside their weights."""

import sqlalchemy as sa
from alembic import op

from migrations import online

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    online.add_column("model_versions", sa.Column("onnx_blob", sa.String(length=64), nullable=True))
    online.add_column("model_versions", sa.Column("onnx_error", sa.Text(), nullable=True))
    online.create_index("ix_model_versions_onnx_blob", "model_versions", ["onnx_blob"])


def downgrade() -> None:
    online.drop_index("ix_model_versions_onnx_blob", "model_versions")
    op.drop_column("model_versions", "onnx_error")
    op.drop_column("model_versions", "onnx_blob")

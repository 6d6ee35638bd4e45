"""A label may carry an annotation: whatever its tool drew or wrote beside the class."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("labels", sa.Column("annotation", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("labels", "annotation")

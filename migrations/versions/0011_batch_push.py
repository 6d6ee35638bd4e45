"""A Label Studio project may be kept filled with the next items: by which connections, and which tasks are made."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_FALSE = sa.text("false")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "tool_connections", sa.Column("batch_push", sa.Boolean(), nullable=False, server_default=_FALSE)
    )
    op.add_column("tool_connections", sa.Column("low_water", _NUMBER, nullable=False, server_default="10"))
    op.add_column(
        "tool_connections", sa.Column("pre_annotate", sa.Boolean(), nullable=False, server_default=_FALSE)
    )
    op.add_column("tool_tasks", sa.Column("pushed", sa.Boolean(), nullable=False, server_default=_FALSE))


def downgrade() -> None:
    """Connections that kept a project filled tell the order of what is there, as the others."""
    op.drop_column("tool_tasks", "pushed")
    for name in ("pre_annotate", "low_water", "batch_push"):
        op.drop_column("tool_connections", name)

"""Probabilities by a user's own model stand in place of the head's."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "own_predictions",
        sa.Column("project_id", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("items", _NUMBER, nullable=False),
        sa.Column("labels", _NUMBER, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name="fk_own_predictions_project_id_projects",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", name="pk_own_predictions"),
    )


def downgrade() -> None:
    op.drop_table("own_predictions")

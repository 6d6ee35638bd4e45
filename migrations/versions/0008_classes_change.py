"""Classes are renamed and merged: the names they had, what annotators said then, and who changed them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("projects", sa.Column("aliases", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("labels", sa.Column("said", sa.Text(), nullable=True))
    op.create_table(
        "class_changes",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("project_id", _NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("became", sa.Text(), nullable=True),
        sa.Column("effects", sa.JSON(), nullable=False),
        sa.Column("key_id", _NUMBER, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('rename','merge','add','remove')", name=op.f("ck_class_changes_kind")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_class_changes_project_id_projects", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["key_id"], ["keys.id"], name="fk_class_changes_key_id_keys", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_class_changes"),
    )
    op.create_index("ix_class_changes_project_id", "class_changes", ["project_id"])
    op.create_index("ix_class_changes_key_id", "class_changes", ["key_id"])


def downgrade() -> None:
    """Labels and items keep the names of now."""
    op.drop_table("class_changes")
    op.drop_column("labels", "said")
    op.drop_column("projects", "aliases")

"""A label may carry what its tool drew or wrote beside the class; a project may follow one of a Label Studio."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("labels", sa.Column("annotation", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "tool_connections",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("project_id", _NUMBER, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("tool_project", _NUMBER, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("config", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("top", _NUMBER, nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=True),
        sa.Column("has_webhook", sa.Boolean(), nullable=False),
        sa.Column("warning", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failures", _NUMBER, nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("lease_token", _NUMBER, nullable=False),
        sa.Column("seen_until", sa.Text(), nullable=True),
        sa.Column("known_classes", sa.JSON(), nullable=False),
        sa.Column("pushed_ranking_id", _NUMBER, nullable=True),
        sa.Column("model_version", sa.Text(), nullable=True),
        sa.Column("predictions", _NUMBER, nullable=False),
        sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name="fk_tool_connections_project_id_projects",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tool_connections"),
        sa.UniqueConstraint("project_id", name="uq_tool_connections_project_id"),
        sa.UniqueConstraint("url", "tool_project", name="uq_tool_connections_url_tool_project"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tool_tasks",
        sa.Column("connection_id", _NUMBER, nullable=False),
        sa.Column("task_id", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("item_id", _NUMBER, nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=True),
        sa.Column("ranking_id", _NUMBER, nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["tool_connections.id"],
            name="fk_tool_tasks_connection_id_tool_connections",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.id"], name="fk_tool_tasks_item_id_items", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("connection_id", "task_id", name="pk_tool_tasks"),
    )
    op.create_index("ix_tool_tasks_item_id", "tool_tasks", ["item_id"])
    op.create_table(
        "tool_annotations",
        sa.Column("connection_id", _NUMBER, nullable=False),
        sa.Column("annotation_id", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("task_id", _NUMBER, nullable=False),
        sa.Column("unique_id", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["tool_connections.id"],
            name="fk_tool_annotations_connection_id_tool_connections",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("connection_id", "annotation_id", name="pk_tool_annotations"),
    )
    op.create_index("ix_tool_annotations_task", "tool_annotations", ["connection_id", "task_id"])


def downgrade() -> None:
    op.drop_table("tool_annotations")
    op.drop_table("tool_tasks")
    op.drop_table("tool_connections")
    op.drop_column("labels", "annotation")

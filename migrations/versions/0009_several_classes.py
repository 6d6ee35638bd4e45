"""Items of a project may be of several classes at once: labels and items carry the set of them as one text."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """All projects of before have one class an item."""
    op.add_column("projects", sa.Column("label_kind", sa.Text(), nullable=False, server_default="single"))


def downgrade() -> None:
    """Before, a label had one class: what has several has no place there, and is not thrown away."""
    several = op.get_bind().execute(sa.text("SELECT name FROM projects WHERE label_kind = 'multi'"))
    if names := sorted(several.scalars()):
        raise RuntimeError(
            "Before revision 0009 an item had one class, and these projects have several: "
            f"{', '.join(names)}. Export their labels (GET …/labels) and delete them first."
        )
    op.drop_column("projects", "label_kind")

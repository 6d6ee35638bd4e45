"""An item is its bytes: it may have changed or be missing, knows the stamp of its file and what it took the key of; a
source says what came of each of its rows.

PostgreSQL alters in place; SQLite cannot change a check but by copying the table. Items keep their numbers: labels
refer to them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BEFORE = "'available','done','broken','quarantined','withdrawn'"
_AFTER = f"{_BEFORE},'changed','missing'"
_COUNTS = ("changed", "moved", "refused", "ignored", "missing")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_REPLACES = sa.text("replaces_id IS NOT NULL")


def upgrade() -> None:
    for name in _COUNTS:
        op.add_column("sources", sa.Column(name, _NUMBER, nullable=False, server_default="0"))
    _allow(_AFTER)
    op.add_column("items", sa.Column("stamp", sa.Text(), nullable=True))
    op.add_column("items", sa.Column("came_by", sa.Text(), nullable=True))
    op.add_column("items", sa.Column("replaces_id", _NUMBER, nullable=True))
    op.create_index(
        "ix_items_replaces", "items", ["replaces_id"], sqlite_where=_REPLACES, postgresql_where=_REPLACES
    )


def downgrade() -> None:
    # The nearest that the older program knows: nobody is asked for them, no head trains on them.
    op.execute("UPDATE items SET state = 'withdrawn' WHERE state IN ('changed', 'missing')")
    op.drop_index("ix_items_replaces", "items")
    for name in ("replaces_id", "came_by", "stamp"):
        op.drop_column("items", name)
    _allow(_BEFORE)
    for name in _COUNTS:
        op.drop_column("sources", name)


def _allow(states: str) -> None:
    name, condition = op.f("ck_items_state"), f"state IN ({states})"
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(name, "items", type_="check")
        op.create_check_constraint(name, "items", condition)
        return
    with op.batch_alter_table("items", recreate="always") as batch:
        batch.drop_constraint(name, type_="check")
        batch.create_check_constraint(name, condition)

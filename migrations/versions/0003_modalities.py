"""Items may be of any kind: projects say of which, `facts` take the place of width and height, a score run may do
without a pretext model.

Columns are added and dropped in place, as in 0002. Only SQLite's `score_runs` is copied, as SQLite cannot change what
a column takes otherwise; the number it would give next is kept, for numbers are never given away again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.add_column("projects", sa.Column("modality", sa.Text(), nullable=True))
    op.add_column("projects", sa.Column("texts_from", sa.JSON(), nullable=False, server_default="[]"))
    op.execute("UPDATE projects SET modality = 'image'")
    op.add_column("items", sa.Column("facts", _JSON, nullable=True))
    make = "json_object" if _on_sqlite() else "json_build_object"
    op.execute(
        f"UPDATE items SET facts = {make}('width', width, 'height', height) "
        "WHERE width IS NOT NULL AND height IS NOT NULL"
    )
    op.drop_column("items", "width")
    op.drop_column("items", "height")
    _let_runs_do_without_model(True)


def downgrade() -> None:
    _remove_provisional_runs()
    _let_runs_do_without_model(False)
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("items", sa.Column("width", number, nullable=True))
    op.add_column("items", sa.Column("height", number, nullable=True))
    for name in ("width", "height"):  # what else is known of an item has no place there
        value = f"json_extract(facts, '$.{name}')" if _on_sqlite() else f"(facts ->> '{name}')::bigint"
        op.execute(f"UPDATE items SET {name} = {value} WHERE facts IS NOT NULL")
    op.drop_column("items", "facts")
    op.drop_column("projects", "texts_from")
    op.drop_column("projects", "modality")


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _let_runs_do_without_model(they_may: bool) -> None:
    if not _on_sqlite():
        op.alter_column("score_runs", "pretext_model_id", nullable=they_may)
        return
    connection = op.get_bind()
    numbers = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
    of_runs = numbers.c.name == "score_runs"
    last = connection.scalar(sa.select(numbers.c.seq).where(of_runs))
    with op.batch_alter_table("score_runs", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("pretext_model_id", existing_type=sa.Integer(), nullable=they_may)
    if last is not None:
        connection.execute(sa.delete(numbers).where(of_runs))
        connection.execute(sa.insert(numbers).values(name="score_runs", seq=last))


def _remove_provisional_runs() -> None:
    """With all that came of them, which SQLite does not remove by itself while it migrates."""
    runs = "(SELECT id FROM score_runs WHERE pretext_model_id IS NULL)"
    rankings = f"(SELECT id FROM rankings WHERE score_run_id IN {runs})"
    heads = f"(SELECT id FROM heads WHERE score_run_id IN {runs})"
    for pointer, gone in (("ranking_id", rankings), ("head_id", heads), ("score_run_id", runs)):
        op.execute(f"UPDATE projects SET {pointer} = NULL WHERE {pointer} IN {gone}")
    op.execute(f"DELETE FROM ranked_items WHERE ranking_id IN {rankings}")
    for table in ("rankings", "heads", "scores", "score_shards", "duplicates"):
        op.execute(f"DELETE FROM {table} WHERE score_run_id IN {runs}")
    op.execute("DELETE FROM score_runs WHERE pretext_model_id IS NULL")

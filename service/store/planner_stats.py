"""Statistics of PostgreSQL's planner, and autovacuum settings of busy tables."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

MANY_ROWS = 1_000

# A label changes its item and its reservation, and the old versions stay in the indexes that serving reads from the
# front until they are vacuumed. By default that waits for a fifth of the table: 200,000 labels in a million items.
_VACUUM = (
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0, "
    "autovacuum_analyze_scale_factor = 0.02"
)
_BUSY_TABLES = ("items", "reservations", "labels")


def refresh(session: Session, table: str) -> None:
    """Call it after adding `MANY_ROWS` or more, in the same transaction.

    The database does so by itself only after a minute. Until then it takes the table for nearly empty, and reads
    all available items for each ranked one: seconds a batch. SQLite plans without statistics, and well.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text(f"ANALYZE {table}"))


def vacuum_soon(connection: sa.Connection) -> None:
    """Settings of the tables that serving and labeling write; does no harm twice."""
    if connection.dialect.name != "postgresql":
        return
    for table in _BUSY_TABLES:
        connection.execute(sa.text(f"ALTER TABLE {table} SET ({_VACUUM})"))

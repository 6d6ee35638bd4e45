"""What PostgreSQL's planner believes of a table that was just filled."""

import sqlalchemy as sa

MANY_ROWS = 1_000


def refresh(engine: sa.Engine, table: str) -> None:
    """Call it after adding `MANY_ROWS` or more.

    The database does so by itself only after a minute. Until then it takes the table for nearly empty, and reads
    all available items for each ranked one: seconds a batch. SQLite plans without statistics, and well.
    """
    if engine.dialect.name != "postgresql":
        return
    with engine.begin() as connection:
        connection.execute(sa.text(f"ANALYZE {connection.dialect.identifier_preparer.quote(table)}"))

"""Bulk load of what a score run found: COPY on PostgreSQL, executemany on SQLite."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.tables import Duplicate, Score, Table


def load_scores(
    session: Session,
    score_run_id: int,
    item_ids: npt.NDArray[np.int64],
    losses: npt.NDArray[np.float32],
    percentiles: npt.NDArray[np.float64],
    spreads: npt.NDArray[np.float32] | None = None,
) -> None:
    """Store the scores of items (n,), ids ascending; without spreads where the losses are of one view.

    What the run held between the first and the last is replaced, so loading a part again does no harm.
    """
    if not len(item_ids):
        return
    first, last = int(item_ids[0]), int(item_ids[-1])
    session.execute(
        sa.delete(Score).where(Score.score_run_id == score_run_id, Score.item_id.between(first, last))
    )
    spread = [None] * len(item_ids) if spreads is None else spreads.astype(np.float64).tolist()
    rows = zip(
        item_ids.tolist(), losses.astype(np.float64).tolist(), percentiles.tolist(), spread, strict=True
    )
    _load(session, Score, score_run_id, ("item_id", "pretext_loss", "percentile", "spread"), rows)


def load_duplicates(session: Session, score_run_id: int, pairs: npt.NDArray[np.int64]) -> None:
    """Store pairs (m, 2) of a duplicate and its representative, item ids; the duplicates ascending.

    What the run held between the first and the last is replaced.
    """
    if not len(pairs):
        return
    between = Duplicate.item_id.between(int(pairs[0, 0]), int(pairs[-1, 0]))
    session.execute(sa.delete(Duplicate).where(Duplicate.score_run_id == score_run_id, between))
    _load(session, Duplicate, score_run_id, ("item_id", "duplicate_of_id"), pairs.tolist())


def _load(
    session: Session, table: type[Table], score_run_id: int, columns: Sequence[str], rows: Iterable[Any]
) -> None:
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        into = f"{table.__tablename__} (score_run_id, {', '.join(columns)})"
        with driver.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
            for row in rows:
                copy.write_row((score_run_id, *row))
        return
    values = [{"score_run_id": score_run_id, **dict(zip(columns, row, strict=True))} for row in rows]
    connection.execute(sa.insert(table), values)

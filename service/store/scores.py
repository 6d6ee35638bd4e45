"""Bulk load of pretext losses: COPY on PostgreSQL, executemany on SQLite."""

from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.tables import Score


def load_scores(
    session: Session,
    score_run_id: int,
    item_ids: npt.NDArray[np.int64],
    losses: npt.NDArray[np.float32],
    percentiles: npt.NDArray[np.float64],
) -> None:
    """Store the scores of items (n,), ids ascending.

    What the run held between the first and the last is replaced, so loading a part again does no harm.
    """
    if not len(item_ids):
        return
    first, last = int(item_ids[0]), int(item_ids[-1])
    session.execute(
        sa.delete(Score).where(Score.score_run_id == score_run_id, Score.item_id.between(first, last))
    )
    rows = zip(item_ids.tolist(), losses.astype(np.float64).tolist(), percentiles.tolist(), strict=True)
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        columns = "score_run_id, item_id, pretext_loss, percentile"
        with driver.cursor() as cursor, cursor.copy(f"COPY scores ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row((score_run_id, *row))
        return
    values = [
        {"score_run_id": score_run_id, "item_id": item_id, "pretext_loss": loss, "percentile": percentile}
        for item_id, loss, percentile in rows
    ]
    connection.execute(sa.insert(Score), values)

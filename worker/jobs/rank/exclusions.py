"""Items that a ranking leaves out though they could be served: all but one of a group of duplicates, and probable junk.

Neither leaves the pool: both are still served at random, as control items, or when nothing else is left.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.tables import BarredItem, Duplicate
from worker.arrays import Bools, Floats, Ints
from worker.heads.reject_head import BARRED_ABOVE, broken_probabilities
from worker.jobs.context import JobContext
from worker.scoring.scored_items import ScoredItems

NO_COPIES = np.empty((0, 2), np.int64)
_MOVED = 0.01  # each ranking fits the reject head anew, and moves nearly all probabilities a little
_CHUNK = 5_000  # rows in one transaction
# On SQLite who waits for the lock looks again after up to 100 ms, and would find the next transaction under way.
_SQLITE_PAUSE_S = 0.1


@dataclass(frozen=True)
class LeftOut:
    """Aligned with the scored items (n,): copies of an item that stands for them; junk, with the probabilities of
    being broken it was told by; and for how many items, itself among them, each that is seen stands.
    """

    copies: Bools
    junk: Bools
    broken_probabilities: Floats
    stands_for: Floats

    @property
    def seen(self) -> Bools:
        """(n,) Mask of the items that a strategy sees."""
        return ~(self.copies | self.junk)


def copies_of(session: Session, score_run_id: int) -> Ints:
    """(m, 2) item ids: a duplicate, and the representative of its group."""
    pairs = sa.select(Duplicate.item_id, Duplicate.duplicate_of_id)
    found = session.execute(pairs.where(Duplicate.score_run_id == score_run_id)).all()
    return np.array([tuple(row) for row in found], np.int64).reshape(-1, 2)


def left_out(
    scored: ScoredItems,
    *,
    free: Bools,
    done: Bools,
    broken: Bools,
    copies: Ints,
    rng: np.random.Generator,
) -> LeftOut:
    """free, done, broken (n,): what could be ranked, has a class, was rejected; copies as `copies_of` gives them.

    An embedding that is not finite raises `NotFinite` with its row.
    """
    junk, probabilities = np.zeros(len(free), np.bool_), np.zeros(len(free), np.float32)
    found = broken_probabilities(scored.embeddings, broken, done, rng)
    if found is not None:
        junk, probabilities = free & (found > BARRED_ABOVE), found
    groups = _groups(scored, copies)
    spare = _spare_copies(groups, free & ~junk, done)
    return LeftOut(spare, junk, probabilities, _shares(groups, spare | ~junk, ~(spare | junk)))


def _groups(scored: ScoredItems, copies: Ints) -> Ints:
    """(n,) the row of the item's representative; its own where it has none."""
    groups = np.arange(len(scored.ids))
    items, representatives = scored.where(copies[:, 0]), scored.where(copies[:, 1])
    known = (items >= 0) & (representatives >= 0)
    groups[items[known]] = representatives[known]
    return groups


def _spare_copies(groups: Ints, free: Bools, done: Bools) -> Bools:
    """(n,) All free items of a group but the first; or all, where one has a class already."""
    settled = np.zeros(len(free), np.bool_)  # by the group's row
    settled[groups[done]] = True
    rows = np.flatnonzero(free)
    spare = free.copy()
    spare[rows[np.unique(groups[rows], return_index=True)[1]]] = False
    return spare | (free & settled[groups])


def _shares(groups: Ints, counted: Bools, seen: Bools) -> Floats:
    """(n,) Each item of a group that is seen stands for an equal share of the items that count; unseen, for none."""
    members = np.bincount(groups[counted], minlength=len(groups))
    bearers = np.bincount(groups[seen], minlength=len(groups))
    shares = np.where(seen, members[groups] / np.maximum(bearers[groups], 1), 0)
    return shares.astype(np.float32)


def barred_items(scored: ScoredItems, unseen: LeftOut) -> dict[int, float]:
    """The probability of being broken by item id."""
    ids, probabilities = scored.ids[unseen.junk], unseen.broken_probabilities[unseen.junk]
    return dict(zip(ids.tolist(), probabilities.tolist(), strict=True))


def bar(context: JobContext, project_id: int, barred: Mapping[int, float]) -> None:
    """Store which items of the project the ranking bars: what is not as the ranking before left it, piece by piece.

    Only lists tell of it, nothing is served by it: so it need not change at once, nor together with the ranking.
    """
    stored = sa.select(BarredItem.item_id, BarredItem.probability).where(BarredItem.project_id == project_id)
    with context.read() as session:
        before = dict(session.execute(stored).all())
    changed = [
        item_id
        for item_id in sorted(before.keys() | barred.keys())
        if abs(before.get(item_id, math.inf) - barred.get(item_id, math.inf)) > _MOVED
    ]
    for start in range(0, len(changed), _CHUNK):
        if start and context.engine.dialect.name == "sqlite":
            time.sleep(_SQLITE_PAUSE_S)
        piece = changed[start : start + _CHUNK]
        rows = [
            {"item_id": item_id, "project_id": project_id, "probability": barred[item_id]}
            for item_id in piece
            if item_id in barred
        ]
        with context.publish() as session:
            session.execute(
                sa.delete(BarredItem)
                .where(BarredItem.item_id.in_(piece))
                .execution_options(synchronize_session=False)
            )
            if rows:
                session.execute(sa.insert(BarredItem), rows)

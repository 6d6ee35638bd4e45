"""From scores to a `Selection`."""

import numpy as np

from worker.arrays import Floats, Ints
from worker.selection.pool_view import PoolView, Selection


def by_score(rows: Ints, scores: Floats, n: int, rng: np.random.Generator) -> Selection:
    """The n best of `rows` (m,), highest of `scores` (m,) first; equal scores in random order.

    A score that is not finite (NaN in an embedding or a loss) is a ValueError that names its row.
    """
    refuse_not_finite(rows, scores)
    shuffled = rng.permutation(len(rows))
    descending = -scores[shuffled]
    if n < len(rows):  # sorting all of a large pool for a few items would be the slowest part
        best = np.argpartition(descending, n)[:n]
        shuffled, descending = shuffled[best], descending[best]
    best = shuffled[np.argsort(descending, kind="stable")]
    return in_order(rows[best], scores[best])


def in_order(rows: Ints, scores: Floats) -> Selection:
    """`rows` in their order; a score that rises above an earlier one is lowered to it, so that scores never
    rise.
    """
    falling = np.minimum.accumulate(scores.astype(np.float32)) if len(scores) else np.empty(0, np.float32)
    return Selection(items=rows.astype(np.int64), scores=falling)


def by_rank(rows: Ints) -> Selection:
    """`rows` in their order, where only the order means something: scores fall evenly from 1 towards 0."""
    return in_order(rows, np.linspace(1, 0, len(rows), endpoint=False, dtype=np.float32))


def mixed(selection: Selection, pool: PoolView, share: float, rng: np.random.Generator) -> Selection:
    """As many items as in `selection`: at each place its next one with probability `share`, else any available item."""
    ours = iter(selection.items.tolist())
    others = iter(rng.permutation(pool.candidates).tolist())
    taken: dict[int, None] = {}  # in order
    for is_ours in rng.random(len(selection.items)) < share:
        taken[next(row for row in (ours if is_ours else others) if row not in taken)] = None
    return Selection(items=np.array(list(taken), np.int64), scores=selection.scores)


def refuse_not_finite(rows: Ints, values: Floats) -> None:
    """`values` (m,) or (m, d), aligned with `rows`."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = ~(finite if finite.ndim == 1 else finite.all(axis=1))
        raise NotFinite(int(rows[bad.argmax()]))


class NotFinite(ValueError):
    """A row of the pool view holds NaN or infinity."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} of the pool holds a value that is not finite")
        self.row = row

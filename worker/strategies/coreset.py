"""Strategy `coreset`."""

import numpy as np

from worker.selection.herding import StandardisedSpace
from worker.selection.index import nearest
from worker.selection.pool_view import PoolView, Selection
from worker.selection.seeding import farthest_first
from worker.selection.selections import in_order
from worker.strategies import Strategy


class CoreSet(Strategy):
    """The item farthest from everything labeled or picked, again and again: greedy k-center. Needs no head.

    Leaves no corner of the pool without a label and hardly picks near-duplicates; but outliers and junk are
    far from everything too, so on frozen embeddings it usually loses to random. Without a label it begins
    with a random item. Exact on pools of any size. Score: the distance to the nearest label or earlier pick,
    between standardised embeddings of length 1.

    Sener and Savarese 2018, Active Learning for Convolutional Neural Networks: A Core-Set Approach,
    https://arxiv.org/abs/1708.00489
    """

    name = "coreset"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        candidates = pool.candidates
        space = StandardisedSpace.drawn(pool, rng)
        points = space.of(candidates)
        labeled = np.flatnonzero(pool.labeled)
        if len(labeled):
            distances = nearest(points, space.of(labeled), 1)[0][:, 0]
        else:
            distances = 4 + rng.random(len(points), np.float32)  # all too far, so that the first is random
        picks, found = farthest_first(points, min(n, len(points)), distances)
        return in_order(candidates[picks], np.sqrt(found))

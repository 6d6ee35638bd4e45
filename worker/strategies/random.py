"""Strategy `random`."""

import numpy as np

from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score
from worker.strategies import Strategy


class Random(Strategy):
    """Items in uniformly random order: the baseline every other strategy is measured against."""

    name = "random"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        candidates = pool.candidates
        return by_score(candidates, rng.random(len(candidates), np.float32), n, rng)

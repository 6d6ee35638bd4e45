"""Strategy `least-confidence`."""

import numpy as np

from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score
from worker.selection.uncertainty import likeliest
from worker.strategies import ColdStart, Strategy


class LeastConfidence(Strategy):
    """The items whose likeliest class is least likely. Score: 1 - the largest probability of the head.

    Like `margin`, but drawn to items that could be any of many classes, junk among them; weak while labels are
    few. Needs a head.

    Lewis and Gale 1994, A Sequential Algorithm for Training Text Classifiers,
    https://arxiv.org/abs/cmp-lg/9407020
    """

    name = "least-confidence"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        if pool.probabilities is None:
            raise ColdStart
        candidates = pool.candidates
        return by_score(candidates, 1 - likeliest(pool.probabilities, pool.several)[candidates], n, rng)

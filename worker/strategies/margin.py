"""Strategy `margin`."""

import numpy as np

from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score
from worker.selection.uncertainty import one_minus_margin
from worker.strategies import ColdStart, Strategy


class Margin(Strategy):
    """The items where the head's two likeliest classes are closest. Score: 1 - (first - second probability).

    Strong once every class has a dozen labels or more, weak before; picks near-duplicates together. Needs a
    head.

    Scheffer et al. 2001, Active Hidden Markov Models for Information Extraction,
    https://doi.org/10.1007/3-540-44816-0_31
    """

    name = "margin"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        if pool.probabilities is None:
            raise ColdStart
        candidates = pool.candidates
        doubts = one_minus_margin(pool.probabilities[candidates], pool.several)
        return by_score(candidates, doubts, n, rng)

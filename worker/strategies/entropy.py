"""Strategy `entropy`."""

import numpy as np

from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score
from worker.selection.uncertainty import entropies
from worker.strategies import ColdStart, Strategy


class Entropy(Strategy):
    """The items whose class the head knows least about. Score: entropy of its probabilities, in nats.

    Counts doubt between all classes, also the unlikely ones; often the weakest of the uncertainty strategies,
    and collapses at times. Needs a head.

    Settles 2009, Active Learning Literature Survey, https://minds.wisconsin.edu/handle/1793/60660; the
    measure: Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x
    """

    name = "entropy"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        if pool.probabilities is None:
            raise ColdStart
        candidates = pool.candidates
        return by_score(candidates, entropies(pool.probabilities, pool.several)[candidates], n, rng)

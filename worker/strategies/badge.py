"""Strategy `badge`."""

import numpy as np

from worker.selection.herding import StandardisedSpace
from worker.selection.pool_view import PoolView, Selection
from worker.selection.seeding import plus_plus, squared_lengths
from worker.selection.selections import by_rank, refuse_not_finite
from worker.strategies import ColdStart, Strategy


class BADGE(Strategy):
    """Items that would move the head far, and in different directions: k-means++ on their gradients.

    The gradient is that of the head's last layer if its likeliest class were true: (probabilities - that
    class) times the embedding. Begins with the longest gradient; then every item is drawn with probability
    proportional to its squared distance to the nearest pick. Works like `margin` with diversity: weak while
    labels are few, good after. Needs a head. Exact on pools of any size: distances between gradients follow
    from products of their two parts, so no gradient is built. Score: the rank.

    Ash et al. 2020, Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds,
    https://arxiv.org/abs/1906.03671
    """

    name = "badge"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        if pool.probabilities is None:
            raise ColdStart
        candidates = pool.candidates
        if not len(candidates):
            return by_rank(candidates)
        misses = pool.probabilities[candidates]
        refuse_not_finite(candidates, misses)
        if pool.several:  # each class has an output of its own
            misses -= misses >= 0.5
        else:
            misses[np.arange(len(misses)), misses.argmax(axis=1)] -= 1
        gradients = [misses, StandardisedSpace.drawn(pool, rng).standardised(candidates)]
        longest = int(squared_lengths(gradients).argmax())
        return by_rank(candidates[plus_plus(gradients, min(n, len(candidates)), longest, rng)])

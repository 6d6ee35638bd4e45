"""Strategy `typiclust`."""

import numpy as np

from worker.clusters import CLUSTERS, in_turns, known_or_offered
from worker.herding import Directions
from worker.index import k_means
from worker.ordering import by_rank
from worker.pool_view import Floats, Ints, PoolView, Selection
from worker.spreading import squared_distances
from worker.strategies import Strategy

_NEIGHBOURS = 20
_CROWD = 5_000


class TypiClust(Strategy):
    """The pool in as many clusters as there will be labels, and of each the most typical item.

    Typical: the mean distance to its 20 nearest neighbours in the cluster is small. Clusters without a label
    come first, the largest of them before. Good while labels are few, below random later; near-duplicates
    look typical and are picked often. Needs no head. Score: the rank.

    Hacohen et al. 2022, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets,
    https://arxiv.org/abs/2202.02794

    On large pools: cluster centers are found on 100,000 random items; there are 2,000 clusters at most (in
    the paper 500), which then have several turns; of a cluster of more than 5,000 items, 5,000 random ones are
    looked at.
    """

    name = "typiclust"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        rows = known_or_offered(pool)
        if not len(rows):
            return by_rank(rows)
        points = Directions.drawn(pool, rng).of(rows)
        labeled = pool.labeled[rows]
        cluster = k_means(points, min(int(labeled.sum()) + n, CLUSTERS), rng)
        order = in_turns(cluster, typicality(points, cluster, rng), labeled)
        return by_rank(rows[order[:n]])


def typicality(points: Floats, cluster: Ints, rng: np.random.Generator) -> Floats:
    """(m, d), (m,) -> (m,): 1 / the mean distance to the 20 nearest others of the same cluster, or to half of
    the cluster where that is less; 0 for what is not looked at.
    """
    found = np.zeros(len(points), np.float32)
    order = np.argsort(cluster, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        looked_at = rng.permutation(members)[:_CROWD]
        neighbours = max(1, min(_NEIGHBOURS, len(looked_at) // 2))
        if len(looked_at) == 1:
            found[looked_at] = 1
            continue
        squared = squared_distances([points], looked_at, looked_at)
        closest = np.sqrt(np.partition(squared, neighbours, axis=1)[:, : neighbours + 1])
        found[looked_at] = 1 / (closest.sum(axis=1) / neighbours + 1e-5)  # an item is at 0 from itself
    return found

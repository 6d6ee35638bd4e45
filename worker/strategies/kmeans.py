"""Strategy `kmeans`."""

import numpy as np

from worker.selection.clusters import CLUSTERS, in_turns, known_or_offered
from worker.selection.herding import StandardisedSpace
from worker.selection.index import k_means_centers, nearest
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_rank
from worker.strategies import Strategy


class KMeans(Strategy):
    """The pool in as many clusters as there will be labels, and of each the item nearest to its center.

    Clusters without a label come first, the largest of them before. Needs no head. On pools of more than
    100,000 items the centers are found on 100,000 random ones; there are 2,000 clusters at most, which then
    have several turns. Score: the rank.

    Pourahmadi et al. 2021, A Simple Baseline for Low-Budget Active Learning,
    https://arxiv.org/abs/2110.12033
    """

    name = "kmeans"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        rows = known_or_offered(pool)
        if not len(rows):
            return by_rank(rows)
        points = StandardisedSpace.drawn(pool, rng).of(rows)
        labeled = pool.labeled[rows]
        clusters = min(int(labeled.sum()) + n, CLUSTERS, len(rows))
        distances, cluster = nearest(points, k_means_centers(points, clusters, rng), 1)
        order = in_turns(cluster[:, 0], -distances[:, 0], labeled)
        return by_rank(rows[order[:n]])

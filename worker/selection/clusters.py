"""Picking from clusters in turns. Shared by the strategies that cluster the pool."""

import numpy as np

from worker.arrays import Bools, Floats, Ints
from worker.selection.pool_view import PoolView

CLUSTERS = 2_000  # k-means of more takes minutes on a large pool; beyond them, clusters get a second turn


def known_or_offered(pool: PoolView) -> Ints:
    """Rows that are labeled or may be selected, ascending."""
    return np.flatnonzero(pool.labeled | pool.available)


def in_turns(cluster: Ints, scores: Floats, taken: Bools) -> Ints:
    """The positions that are not `taken` (m,), in the order to pick them.

    Clusters of which the fewest are taken come first, among them the largest; of each the one with the
    highest of `scores` (m,). Picked items count as taken.
    """
    sizes = np.bincount(cluster)
    order = np.lexsort((-scores, ~taken, cluster))  # cluster by cluster: the taken, then the best first
    starts = np.cumsum(sizes) - sizes
    turn = np.empty(len(cluster), np.int64)
    turn[order] = np.arange(len(cluster)) - np.repeat(starts, sizes)
    ordered = np.lexsort((cluster, -sizes[cluster], turn))
    return ordered[~taken[ordered]]

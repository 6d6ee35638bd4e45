"""Strategy `typiclust`."""

from collections.abc import Iterator

import numpy as np

from worker.arrays import Floats, Ints
from worker.selection.clusters import CLUSTERS, in_turns, known_or_offered
from worker.selection.herding import StandardisedSpace
from worker.selection.index import k_means
from worker.selection.pool_view import PoolView, Selection
from worker.selection.seeding import squared_distances
from worker.selection.selections import by_rank
from worker.strategies import Strategy

_NEIGHBOURS = 20
_CROWD = 5_000
_TOGETHER = 512


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
        points = StandardisedSpace.drawn(pool, rng).of(rows)
        labeled = pool.labeled[rows]
        cluster = k_means(points, min(int(labeled.sum()) + n, CLUSTERS), rng)
        order = in_turns(cluster, typicality(points, cluster, rng), labeled)
        return by_rank(rows[order[:n]])


def typicality(points: Floats, cluster: Ints, rng: np.random.Generator) -> Floats:
    """(m, d), (m,) -> (m,): 1 / the mean distance to the 20 nearest others of the same cluster, or to half of
    the cluster where that is less; 0 for an item without others, or not looked at.
    """
    found = np.zeros(len(points), np.float32)
    for rows in _several_clusters(cluster, rng):
        of = cluster[rows]
        squared = squared_distances([points], rows, rows)
        squared[of[:, None] != of] = np.inf
        columns = min(_NEIGHBOURS + 1, len(rows))
        closest = np.sqrt(np.sort(np.partition(squared, columns - 1, axis=1)[:, :columns], axis=1))
        sizes = np.bincount(of)[of]
        neighbours = np.clip(sizes // 2, 1, _NEIGHBOURS)
        counted = np.arange(columns) <= neighbours[:, None]  # the first is the item itself, at 0
        mean_distance = closest.sum(axis=1, where=counted) / neighbours
        found[rows] = np.where(sizes > 1, 1 / (mean_distance + 1e-5), 0)
    return found


def _several_clusters(cluster: Ints, rng: np.random.Generator) -> Iterator[Ints]:
    """Rows of whole clusters, several hundred together: one product of small matrices each would be slower."""
    order = np.argsort(cluster, kind="stable")
    together: list[Ints] = []
    for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        together.append(members if len(members) <= _CROWD else rng.permutation(members)[:_CROWD])
        if sum(map(len, together)) >= _TOGETHER:
            yield np.concatenate(together)
            together = []
    if together:
        yield np.concatenate(together)

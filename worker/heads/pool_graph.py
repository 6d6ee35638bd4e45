"""The pool, labeled or not, as a graph of nearest neighbours on which classes spread; see `worker.selection.spaces` for
what makes neighbours.
"""

from functools import cached_property

import numpy as np
from scipy import sparse

from worker.arrays import Bytes, Floats, Halves, Ints
from worker.device import side_by_side
from worker.heads.calibration import finite, scale_of, softened
from worker.selection.index import nearest
from worker.selection.spaces import WhitenedSpace

_NEIGHBOURS = 10
_STAYS = np.float32(0.1)  # 1 - α: the part of an item's own label that stays in each step
_STEPS = 30  # 0.9³⁰ = 4 % of the way are left
_NODES = 20_000  # a random part of that size stands for a larger pool; exact neighbours of more take minutes


class PoolGraph:
    """Neighbours are found when first asked for, and once: one graph serves all heads trained on a pool.

    embeddings    (m, d), m >= 1, or those of its `rows`
    appearance    (m, f) of what items look like, in the same order
    aside         rows that nothing is learned from, and nothing spreads through
    similarities  of the same graph as it was made before, which saves finding the neighbours
    """

    def __init__(
        self,
        embeddings: Halves | Floats,
        rng: np.random.Generator,
        rows: Ints | None = None,
        appearance: Bytes | None = None,
        aside: Ints | None = None,
    ) -> None:
        if rows is None:
            rows = np.arange(len(embeddings))
        self.rows = np.sort(rng.permutation(rows)[:_NODES])  # (m,) of the nodes, in `embeddings`
        self._embeddings = finite(embeddings[self.rows])
        self._appearance = None if appearance is None else appearance[self.rows]
        apart = np.zeros(len(self.rows), np.bool_) if aside is None else np.isin(self.rows, aside)
        self._aside, self._open = np.flatnonzero(apart), np.flatnonzero(~apart)

    def __len__(self) -> int:
        """Nodes that are not aside."""
        return len(self._open)

    @cached_property
    def mean(self) -> Floats:
        return np.asarray(self._embeddings.mean(axis=0))

    @cached_property
    def scale(self) -> Floats:
        return scale_of(self._embeddings)

    def points(self, nodes: Ints) -> Floats:
        """(k,) -> (k, d) float32, standardised"""
        return np.asarray((self._embeddings[nodes] - self.mean) / self.scale)

    def some(self, count: int, rng: np.random.Generator) -> Ints:
        """At most `count` random nodes, each once, none of them aside."""
        return rng.choice(self._open, min(count, len(self._open)), replace=False)

    def nodes_of(self, embeddings: Halves | Floats) -> Ints:
        """(n, d) -> (n,) the nearest node that is not aside."""
        places = self._space.without_appearance(finite(embeddings))
        return self._open[nearest(places, self._places, 1)[1][:, 0]]

    def classes_reached(
        self, embeddings: Halves | Floats, classes: Ints, n_classes: int, seen: Floats, chosen: Ints
    ) -> Floats:
        """(k, f, c) soft classes of the `chosen` nodes (k,), as labels spread to them from embeddings (n, d) with
        classes (n,), in f problems that see (n, f) part of the labels. The classes' shares where none came. Of several
        classes an item, (n, c), each spreads for itself.
        """
        targets = softened(classes, n_classes)[:, None] * seen[:, :, None]
        nodes = self.nodes_of(embeddings)
        found = np.empty((len(chosen), *targets.shape[1:]), np.float32)
        _ = self.similarities  # found before several threads ask for them

        def solve(problems: slice) -> None:  # one a thread, as many classes times all nodes are much memory
            labels = np.zeros((len(self.rows), n_classes), np.float32)
            np.add.at(labels, nodes, targets[:, problems.start])
            found[:, problems.start] = self.spread(labels)[chosen]

        side_by_side(seen.shape[1], 1, solve)
        shares = targets.sum(axis=0) + 1e-6
        if classes.ndim == 2:
            labeled = np.zeros((len(self.rows), seen.shape[1]), np.float32)
            np.add.at(labeled, nodes, seen)
            came = self.spread(labeled)[chosen][:, :, None] + 1e-9
            # Rounding must not leave a share above 1.
            return np.asarray(
                np.minimum((found + 1e-9 * shares / (seen.sum(axis=0)[:, None] + 2e-6)) / came, 1)
            )
        found += 1e-9 * shares / shares.sum(axis=1, keepdims=True)
        return np.asarray(found / found.sum(axis=2, keepdims=True))

    def spread(self, labels: Floats) -> Floats:
        """(m, k), 0 where nothing is known -> (m, k) after label spreading, not normalised.

        Zhou et al. 2004, Learning with Local and Global Consistency,
        https://proceedings.neurips.cc/paper/2003/hash/87682805257e619d49b8e0dfdc14affa-Abstract.html
        F ← α S F + (1 - α) Y with S = D^(-1/2) W D^(-1/2), α = 0.9, 30 steps.
        """
        start = _STAYS * labels
        found = labels
        for _ in range(_STEPS):
            found = self.similarities @ found
            found *= 1 - _STAYS
            found += start
            found[self._aside] = 0
        return found

    @cached_property
    def _space(self) -> WhitenedSpace:
        return WhitenedSpace(self._embeddings, None)

    @cached_property
    def _places(self) -> Floats:
        """Places (k, d), those of nodes aside left out"""
        return self._space.without_appearance(self._embeddings[self._open])

    @cached_property
    def similarities(self) -> sparse.csr_array:
        """S (m, m) float32: Gaussian in the distance to each of ten neighbours, as wide as the tenth is far. It is the
        same whatever is aside, so whoever kept it may set it.
        """
        m = len(self.rows)
        space = WhitenedSpace(self._embeddings, self._appearance)
        points = space.of(self._embeddings, self._appearance)
        distances, rows = nearest(points, points, min(_NEIGHBOURS + 1, m))
        weights = np.exp(-distances / (distances[:, -1:] + 1e-12))
        weights[rows == np.arange(m)[:, None]] = 0  # nobody is its own neighbour
        starts = np.arange(m + 1) * rows.shape[1]
        one_way = sparse.csr_array((weights.ravel(), rows.ravel(), starts), shape=(m, m))
        both_ways = one_way + one_way.T
        lengths = sparse.diags_array(1 / np.sqrt(np.maximum(both_ways.sum(axis=1), 1e-12)))
        return (lengths @ both_ways @ lengths).astype(np.float32).tocsr()

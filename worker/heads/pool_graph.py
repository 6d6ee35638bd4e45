"""The pool, labeled or not, as a graph of nearest neighbours on which classes spread; see `worker.selection.spaces` for
what makes neighbours.
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from worker.arrays import Bytes, Floats, Halves, Ints
from worker.heads.calibration import finite, scale_of, softened
from worker.selection.index import nearest
from worker.selection.spaces import WhitenedSpace

_NEIGHBOURS = 10
_STAYS = 0.1  # 1 - α: the part of an item's own label that stays in each step
_STEPS = 30  # 0.9³⁰ = 4 % of the way are left
_NODES = 20_000  # a random part of that size stands for a larger pool; exact neighbours of more take minutes


class PoolGraph:
    """Neighbours are found when first asked for, and once: one graph serves all heads trained on a pool.

    embeddings  (m, d), m >= 1, or those of its `rows`
    appearance  (m, f) of what items look like, in the same order
    """

    def __init__(
        self,
        embeddings: Halves | Floats,
        rng: np.random.Generator,
        rows: Ints | None = None,
        appearance: Bytes | None = None,
    ) -> None:
        if rows is None:
            rows = np.arange(len(embeddings))
        self.rows = np.sort(rng.permutation(rows)[:_NODES])  # (m,) of the nodes, in `embeddings`
        self._embeddings = embeddings[self.rows]
        self._appearance = None if appearance is None else appearance[self.rows]

    def __len__(self) -> int:
        """Nodes."""
        return len(self._embeddings)

    @cached_property
    def mean(self) -> Floats:
        return np.asarray(finite(self._embeddings).mean(axis=0))

    @cached_property
    def scale(self) -> Floats:
        return scale_of(finite(self._embeddings))

    @cached_property
    def points(self) -> Floats:
        """(m, d) float32, standardised; m <= 20,000"""
        return np.asarray((finite(self._embeddings) - self.mean) / self.scale)

    def nodes_of(self, embeddings: Halves | Floats) -> Ints:
        """(n, d) -> (n,) the nearest node."""
        return nearest(self._space.without_appearance(finite(embeddings)), self._places, 1)[1][:, 0]

    def classes_reached(
        self, embeddings: Halves | Floats, classes: Ints, n_classes: int, seen: Floats, chosen: Ints
    ) -> Floats:
        """(k, f, c) soft classes of the `chosen` nodes (k,), as labels spread to them from embeddings (n, d) with
        classes (n,), in f problems that see (n, f) part of the labels. The classes' shares where none came. Of several
        classes an item, (n, c), each spreads for itself.
        """
        targets = softened(classes, n_classes)[:, None] * seen[:, :, None]
        labels = np.zeros((len(self), *targets.shape[1:]), np.float32)
        np.add.at(labels, self.nodes_of(embeddings), targets)
        found = self.spread(labels.reshape(len(self), -1)).reshape(labels.shape)[chosen]
        shares = targets.sum(axis=0) + 1e-6
        if classes.ndim == 2:
            labeled = np.zeros((len(self), seen.shape[1]), np.float32)
            np.add.at(labeled, self.nodes_of(embeddings), seen)
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
        start = torch.from_numpy(labels)
        found = start
        for _ in range(_STEPS):
            found = (1 - _STAYS) * torch.sparse.mm(self._similarities, found) + _STAYS * start
        return found.numpy()

    @cached_property
    def _space(self) -> WhitenedSpace:
        return WhitenedSpace(finite(self._embeddings), self._appearance)

    @cached_property
    def _places(self) -> Floats:
        """(m, d)"""
        return self._space.without_appearance(finite(self._embeddings))

    @cached_property
    def _similarities(self) -> Tensor:
        """S (m, m): Gaussian in the distance to each of ten neighbours, as wide as the tenth is far."""
        m = len(self)
        points = self._space.of(finite(self._embeddings), self._appearance)
        distances, rows = nearest(points, points, min(_NEIGHBOURS + 1, m))
        weights = np.exp(-distances / (distances[:, -1:] + 1e-12))
        weights[rows == np.arange(m)[:, None]] = 0  # nobody is its own neighbour
        ends = np.stack([np.repeat(np.arange(m), rows.shape[1]), rows.ravel()])
        one_way = _sparse(torch.from_numpy(ends), torch.from_numpy(weights.ravel()), m)
        both_ways = (one_way + one_way.T).coalesce()
        degrees = torch.sparse.sum(both_ways, dim=1).to_dense().clamp(min=1e-12).rsqrt()
        (left, right), values = both_ways.indices(), both_ways.values()
        return _sparse(both_ways.indices(), values * degrees[left] * degrees[right], m).coalesce()


def _sparse(ends: Tensor, values: Tensor, m: int) -> Tensor:
    return torch.sparse_coo_tensor(ends, values, (m, m), check_invariants=True)

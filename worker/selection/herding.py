"""Kernel herding: pick the items whose surroundings cover the pool best. Shared by the coverage strategies.

Bae et al. 2024, Generalized Coverage for More Robust Low-Budget Active Learning (MaxHerding),
https://arxiv.org/abs/2407.12212; with weights: Bae et al. 2025, Uncertainty Herding,
https://arxiv.org/abs/2412.20644.

Coverage is Σ_r w_r max_k exp(-|u_k - u_r|² / s²) over reference items r and labeled or picked items k,
where u are the standardised, L2-normalised embeddings. It is submodular, so the greedy pick of the largest
gain is within 1 - 1/e of the best set, and an old gain bounds a new one from above: lazy greedy looks at
few candidates a pick (Minoux 1978).
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from worker.arrays import Floats, Ints
from worker.device import side_by_side
from worker.selection.index import nearest
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import in_order, refuse_not_finite

# A random part of a large pool stands for all of it. Twice as many candidates cover 0.5 to 1 % more (50 picks
# from 5,000, 10,000 and 14,000 Fashion-MNIST images), and take twice as long.
REFERENCES = 3_000
MORE_REFERENCES = 6_000  # their picks cover 1 % more of a pool of 10,000 than those of 3,000
CANDIDATES = 10_000
HERDED = 2_000  # more picks than that in one ranking say nothing about 3,000 references; the rest is random
_BLOCK = 65_536  # embeddings turned to float32 at a time
_KERNEL_ROWS = 256  # few enough to stay in the cache between product and exponential
_LOOKS = 64  # candidates looked at again together: small enough to waste little, large enough for numpy


def herd(
    pool: PoolView,
    n: int,
    weights: Floats | None,
    rng: np.random.Generator,
    *,
    references: int = REFERENCES,
    factors: Floats | None = None,
    space_of: "Callable[[PoolView, Ints], Space] | None" = None,
) -> Selection:
    """Greedy herding from what is labeled on; the score is the share of the references an item newly covers,
    times its factor.

    weights     (len(pool),) at least 0: how much covering an item is worth; None = all the same
    references  how many random items stand for the pool
    factors     (len(pool),) at least 0: what the gain of picking an item is multiplied by; None = all the same
    space_of    makes the space of a pool and of the references in it; None = `StandardisedSpace`
    """
    candidates = rng.permutation(pool.candidates)  # so that equal gains are settled at random
    n = min(n, len(candidates))
    looked_at = candidates[:CANDIDATES]
    covering = rng.choice(len(pool), min(references, len(pool)), replace=False)
    space = (space_of or StandardisedSpace)(pool, covering)
    points = space.of(covering)
    width = kernel_width(points, int(pool.labeled.sum()) + pool.round_size)
    worth = np.ones(len(covering), np.float32) if weights is None else weights[covering]
    refuse_not_finite(covering, worth)
    if worth.sum() <= 0:
        worth = np.ones(len(covering), np.float32)

    similarity = kernel(space.of(looked_at), points, width)
    covered = np.zeros(len(covering), np.float32)
    labeled = np.flatnonzero(pool.labeled)
    if len(labeled):
        distances, _ = nearest(points, space.of(labeled), 1)
        covered = np.exp(-distances[:, 0] / width)
    own = np.ones(len(looked_at), np.float32) if factors is None else factors[looked_at]
    refuse_not_finite(looked_at, own)
    n_herded = min(n, len(looked_at), HERDED)
    picks, gains = lazy_greedy(similarity, worth / worth.sum(), covered, n_herded, own)

    picked = looked_at[picks]
    rest = np.setdiff1d(candidates, picked) if n > len(picked) else candidates[:0]
    rest = rng.permutation(rest)[: n - len(picked)]
    return in_order(np.concatenate([picked, rest]), np.concatenate([gains, np.zeros(len(rest), np.float32)]))


class Space(Protocol):
    def of(self, rows: Ints) -> Floats:
        """(m,) -> (m, k) float32 of length 1, or 0"""
        ...


class StandardisedSpace:
    """Standardised, L2-normalised embeddings: every dimension counts alike, and only the direction counts."""

    def __init__(self, pool: PoolView, references: Ints) -> None:
        """Mean and spread are those of the `references`, a random part of the pool."""
        self._embeddings = pool.embeddings
        sample = self._read(references)
        self._mean = sample.mean(axis=0)
        spread = sample.std(axis=0)
        self._scale = 1 / np.where(spread > 1e-6, spread, np.inf)  # a constant dimension says nothing

    @staticmethod
    def drawn(pool: PoolView, rng: np.random.Generator) -> "StandardisedSpace":
        """With the mean and spread of random items."""
        return StandardisedSpace(pool, rng.choice(len(pool), min(REFERENCES, len(pool)), replace=False))

    def standardised(self, rows: Ints) -> Floats:
        """(m,) -> (m, d) float32, converted block by block: the result is the only copy of that size."""
        found = np.empty((len(rows), self._embeddings.shape[1]), np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            found[start : start + _BLOCK] = (self._read(block) - self._mean) * self._scale
        return found

    def of(self, rows: Ints) -> Floats:
        """(m,) -> (m, d) float32 of length 1, or 0 where an item is the mean itself."""
        directions = self.standardised(rows)
        lengths = np.sqrt(np.einsum("md,md->m", directions, directions))
        directions /= np.maximum(lengths, 1e-6)[:, None]
        return directions

    def _read(self, rows: Ints) -> Floats:
        embeddings: Floats = self._embeddings[rows].astype(np.float32)
        refuse_not_finite(rows, embeddings)
        return embeddings


def kernel(points: Floats, references: Floats, width: float) -> Floats:
    """(m, d), (r, d), both of length 1 -> (m, r) exp(-squared distance / width)."""
    similarity = np.empty((len(points), len(references)), np.float32)

    def fill(rows: slice) -> None:
        block = similarity[rows]
        np.matmul(points[rows] * np.float32(2 / width), references.T, out=block)
        block -= np.float32(2 / width)  # squared distance = 2 - 2 cosine
        torch.from_numpy(block).exp_()  # three times as quick as np.exp

    side_by_side(len(points), _KERNEL_ROWS, fill)
    return similarity


def kernel_width(points: Floats, labels: int) -> float:
    """s²: the squared distance within which a `labels`-th of all points lie, median over points (r, d).

    So the kernel narrows as the budget grows: few labels must each stand for many items. Not below 0.2 %,
    where single neighbours would decide.
    """
    share = max(1 / max(labels, 1), 0.002)
    neighbour = min(max(round(share * (len(points) - 1)), 1), len(points) - 1)
    distances, _ = nearest(points[:500], points, neighbour + 1)  # the nearest is the point itself
    return max(float(np.median(distances[:, -1])), 1e-6)


def lazy_greedy(
    similarity: Floats, worth: Floats, covered: Floats, n: int, factors: Floats | None = None
) -> tuple[Ints, Floats]:
    """n greedy picks of rows of `similarity` (m, r), n <= m, and the gain of each, both (n,).

    worth    (r,) weight of a reference
    covered  (r,) how much of each reference is covered already
    factors  (m,) of the gains of a row; None = 1. They stay, so that an old gain still bounds a new one.
    """
    covered = covered.copy()
    factors = np.ones(len(similarity), np.float32) if factors is None else factors

    def gain(rows: Ints | slice) -> Floats:
        uncovered = similarity[rows] - covered
        return np.asarray((np.maximum(uncovered, 0, out=uncovered) @ worth) * factors[rows])

    looks = min(_LOOKS, max(len(similarity), 1))
    bounds = np.empty(len(similarity), np.float32)
    for start in range(0, len(bounds), looks):
        bounds[start : start + looks] = gain(slice(start, start + looks))
    looked = np.zeros(len(bounds), np.int64)  # the pick at which a bound was the gain itself
    picks, gains = np.empty(n, np.int64), np.empty(n, np.float32)
    for i in range(n):
        while looked[best := int(bounds.argmax())] < i:
            # With the best itself: among many equal bounds it need not be in the block.
            block = np.append(np.argpartition(bounds, -looks)[-looks:], best)
            block = block[looked[block] < i]
            bounds[block] = np.minimum(gain(block), bounds[block])
            looked[block] = i
        picks[i], gains[i] = best, bounds[best]
        np.maximum(covered, similarity[best], out=covered)
        bounds[best] = -np.inf
        looked[best] = n
    return picks, gains

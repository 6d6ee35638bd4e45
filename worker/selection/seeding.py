"""Points far from each other: k-means++ and k-center, on all items of a large pool.

Both are sequential by their nature: every pick lowers the distances the next one depends on. A plain loop
therefore reads all vectors once a pick. Here many picks are made from few vectors, and only then are all
distances brought up to date by one matrix product: the same picks, but arithmetic in place of memory traffic.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from worker.arrays import Floats, Ints

_ROWS = 8_192  # distances brought up to date at a time
_PROPOSALS = 256
_WORKING_SET = 4_096


def squared_distances(factors: Sequence[Floats], rows: Ints | slice, others: Ints) -> Floats:
    """(a,), (b,) -> (a, b). A vector is the outer product of its rows in `factors`, each (m, d_i).

    |g - h|² = |g|² + |h|² - 2 g·h, and the inner product of outer products is the product of inner products,
    so the outer product itself, of length Π d_i, is never built.
    """
    inner = prod(factor[rows] @ factor[others].T for factor in factors)
    found = squared_lengths(factors, rows)[:, None] + squared_lengths(factors, others) - 2 * inner
    return np.maximum(found, 0, out=found)


def squared_lengths(factors: Sequence[Floats], rows: Ints | slice = slice(None)) -> Floats:
    """(a,)"""
    return np.asarray(prod(np.einsum("ad,ad->a", factor[rows], factor[rows]) for factor in factors))


def plus_plus(factors: Sequence[Floats], n: int, first: int, rng: np.random.Generator) -> Ints:
    """n <= m rows by k-means++: after `first`, each with probability proportional to its squared distance to the
    nearest pick (Arthur and Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494).

    Exact, by rejection: picks only lower distances, so rows proposed by older distances and kept with
    probability (distance now / distance then) are distributed as if proposed by those of now.
    """
    picks = [first]
    distances = np.full(len(factors[0]), np.inf, np.float32)
    brought_up_to = 0
    while len(picks) < n:
        _bring_up_to_date(distances, factors, np.array(picks[brought_up_to:]))
        distances[picks], brought_up_to = 0, len(picks)
        mass = np.cumsum(distances, dtype=np.float64)
        if mass[-1] <= 0:  # whatever is left coincides with a pick
            rest = np.delete(np.arange(len(distances)), picks)
            return np.concatenate([picks, rng.permutation(rest)[: n - len(picks)]])
        proposals = np.searchsorted(mass, rng.random(_PROPOSALS) * mass[-1], side="right")
        proposals = np.minimum(proposals, len(mass) - 1)
        then = distances[proposals]
        now, among = then.copy(), squared_distances(factors, proposals, proposals)
        among[proposals[:, None] == proposals] = 0
        for i, chance in enumerate(rng.random(_PROPOSALS)):
            if chance * then[i] < now[i] and len(picks) < n:
                picks.append(int(proposals[i]))
                np.minimum(now, among[i], out=now)
    return np.array(picks)


def farthest_first(points: Floats, n: int, distances: Floats) -> tuple[Ints, Floats]:
    """n <= m rows of `points` (m, d) by greedy k-center, always the farthest from all before it, and their
    squared distances when picked (Gonzalez 1985, https://doi.org/10.1016/0304-3975(85)90224-5).

    distances  (m,) squared, to the nearest point that counts as picked already; large where there is none

    Exact: distances only fall, so while the farthest of a working set is as far as all others once were, it
    is the farthest of all.
    """
    distances = distances.copy()
    picks: list[int] = []
    found: list[float] = []
    brought_up_to = 0
    while len(picks) < n:
        _bring_up_to_date(distances, [points], np.array(picks[brought_up_to:], np.int64))
        distances[picks], brought_up_to = -1, len(picks)
        size = min(_WORKING_SET, len(points))
        near = np.argpartition(distances, len(points) - size)[len(points) - size :]
        vectors, now = points[near], distances[near]
        outside = now.min() if size < len(points) else -np.inf
        lengths = squared_lengths([vectors])
        while len(picks) < n and now[best := int(now.argmax())] >= outside:
            picks.append(int(near[best]))
            found.append(float(now[best]))
            inner = np.einsum("ad,d->a", vectors, vectors[best])  # too small to be worth a second thread
            np.minimum(now, np.maximum(lengths + lengths[best] - 2 * inner, 0), out=now)
            now[near == near[best]] = -1
    return np.array(picks, np.int64), np.array(found, np.float32)


def _bring_up_to_date(distances: Floats, factors: Sequence[Floats], picks: Ints) -> None:
    """Lowers `distances` (m,) to those to the `picks`, in place."""
    if not len(picks):
        return
    for start in range(0, len(distances), _ROWS):
        block = slice(start, start + _ROWS)
        nearest = squared_distances(factors, block, picks).min(axis=1)
        np.minimum(distances[block], nearest, out=distances[block])

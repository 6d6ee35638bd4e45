"""How sure a head is, and picks that are unsure and unlike each other. Shared by the uncertainty
strategies.
"""

import numpy as np

from worker.herding import Directions
from worker.index import k_means
from worker.ordering import by_score, in_order
from worker.pool_view import Floats, Ints, PoolView, Selection

_WIDER = 5  # the unsure items clustered, per item picked
_BLOCK = 200  # k-means of more clusters at once would take seconds
_CLUSTERED = 2_000
_ROWS = 65_536  # at a time, so that no copy of a large pool's probabilities is made


def top_two(probabilities: Floats) -> tuple[Floats, Floats]:
    """(n, c) -> the largest and the second largest probability, (n,) each; with one class the second is 0."""
    if probabilities.shape[1] == 1:
        return probabilities[:, 0], np.zeros(len(probabilities), np.float32)
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return two[:, 1], two[:, 0]


def unsureness(probabilities: Floats) -> Floats:
    """1 - margin, (n, c) -> (n,) in [0, 1]; the margin: the largest minus the second largest probability."""
    first, second = top_two(probabilities)
    return np.asarray(1 - (first - second), dtype=np.float32)


def entropies(probabilities: Floats) -> Floats:
    """(n, c) -> (n,) in nats."""
    found = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), _ROWS):
        block = probabilities[start : start + _ROWS]
        found[start : start + _ROWS] = -(block * np.log(np.maximum(block, 1e-30))).sum(axis=1)
    return found


def clustered_margin(pool: PoolView, probabilities: Floats, n: int, rng: np.random.Generator) -> Selection:
    """Batches of b = `round_size`: the 5 b smallest margins, k-means into b clusters, the most unsure of
    each.

    After Citovsky et al. 2021, Batch Active Learning at Scale, https://arxiv.org/abs/2107.14263, with
    k-means on the unsure items in place of clusters of the whole pool. Beyond 2,000 items the rest follows
    by margin alone.
    """
    scores = unsureness(probabilities)
    b = min(pool.round_size, _BLOCK)
    rest = by_score(pool.candidates, scores[pool.candidates], n + _WIDER * b, rng).items
    space = Directions.drawn(pool, rng)
    picked: list[Ints] = []
    wanted = min(n, len(rest))
    while wanted > 0 and len(picked) * b < _CLUSTERED:
        unsure = rest[: _WIDER * b]
        _, first = np.unique(k_means(space.of(unsure), b, rng), return_index=True)
        best = np.zeros(len(unsure), np.bool_)
        best[first] = True  # rest is sorted, so the first of a cluster is its most unsure
        best[np.flatnonzero(~best)[: b - len(first)]] = True  # clusters stay empty where items coincide
        batch = unsure[best][:wanted]
        picked.append(batch)
        wanted -= len(batch)
        rest = rest[~np.isin(rest, batch)]
    order = np.concatenate([*picked, rest[:wanted]])
    return in_order(order, scores[order])

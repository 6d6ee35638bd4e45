from dataclasses import replace

import numpy as np

from tests.worker.pools import make_pool
from worker.arrays import Bools, Floats, Ints
from worker.selection.clusters import in_turns, known_or_offered


def _plain(cluster: Ints, scores: Floats, taken: Bools) -> list[int]:
    """Pick by pick: the cluster of which the fewest are taken, the larger, the first; of it the best left."""
    taken, order = taken.copy(), []
    while not taken.all():
        open_clusters = {int(c) for c in cluster[~taken]}
        chosen = min(
            open_clusters,
            key=lambda c: (int(taken[cluster == c].sum()), -int((cluster == c).sum()), c),
        )
        left = np.flatnonzero((cluster == chosen) & ~taken)
        best = int(left[scores[left].argmax()])
        taken[best] = True
        order.append(best)
    return order


def test_in_turns_is_what_a_plain_loop_picks() -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(9, size=80) * 2  # every second cluster stays empty
    scores = rng.random(80, np.float32)
    taken = rng.random(80) < 0.2

    assert in_turns(cluster, scores, taken).tolist() == _plain(cluster, scores, taken)


def test_what_is_kept_for_the_control_arm_is_not_clustered() -> None:
    pool = make_pool(n=10, labeled=3)
    available = pool.available.copy()
    kept = int(pool.candidates[0])
    available[kept] = False

    rows = known_or_offered(replace(pool, available=available))

    assert sorted({*range(10)} - {kept}) == rows.tolist()

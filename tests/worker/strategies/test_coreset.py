import numpy as np

from tests.worker.pools import make_pool
from worker.selection.herding import StandardisedSpace
from worker.strategies.coreset import CoreSet


def test_picks_the_farthest_from_labels_and_earlier_picks() -> None:
    pool = make_pool(n=200, labeled=15)
    points = StandardisedSpace(pool, np.arange(200)).of(
        np.arange(200)
    )  # few items: the sample is all of them
    reached = np.flatnonzero(pool.labeled).tolist()

    found = CoreSet().select(pool, 25, np.random.default_rng(0))

    for item, score in zip(found.items.tolist(), found.scores, strict=True):
        distances = [min(float(np.linalg.norm(point - points[row])) for row in reached) for point in points]
        assert score >= max(np.array(distances)[pool.available]) - 1e-3
        assert abs(distances[item] - score) < 1e-3
        reached.append(item)


def test_begins_anywhere_without_a_label() -> None:
    pool = make_pool(n=50)

    firsts = {int(CoreSet().select(pool, 1, np.random.default_rng(seed)).items[0]) for seed in range(20)}

    assert len(firsts) > 10

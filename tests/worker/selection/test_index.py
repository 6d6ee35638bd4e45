import numpy as np
import pytest

from worker.arrays import Floats
from worker.selection.index import k_means, likely_nearest, nearest


def _points(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def test_nearest_is_exact() -> None:
    queries, points = _points(20), _points(70, seed=1)
    squared = ((queries[:, None] - points[None]) ** 2).sum(axis=2)

    distances, rows = nearest(queries, points, 4)

    np.testing.assert_array_equal(rows, np.argsort(squared, axis=1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(squared, axis=1)[:, :4], rtol=1e-4)


def test_many_points_are_searched_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    points = _points(3_000)
    exact = nearest(points, points, 5)[1]
    assert (likely_nearest(points, points, 5)[1] == exact).all()

    monkeypatch.setattr("worker.selection.index.EXACT", 2_000)
    distances, rows = likely_nearest(points, points, 5)

    assert (rows == exact).mean() > 0.95
    assert (rows[:, 0] == np.arange(3_000)).all()
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize("k", [0, 71])
def test_nearest_refuses_more_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the number of points, 70"):
        nearest(_points(3), _points(70), k)


def test_k_means_finds_clusters() -> None:
    truth = np.repeat(np.arange(6), 15)
    points = _points(6, seed=2)[truth] * 500 + _points(90)  # far apart: k-means++ rarely starts twice in one

    clusters = k_means(points, 6, np.random.default_rng(0))

    assert all(len(set(clusters[truth == cluster].tolist())) == 1 for cluster in range(6))
    assert len(set(clusters.tolist())) == 6


def test_k_means_of_few_or_equal_points() -> None:
    assert k_means(_points(3), 5, np.random.default_rng(0)).tolist() == [0, 1, 2]
    equal = k_means(np.ones((40, 5), np.float32), 4, np.random.default_rng(0))
    assert equal.shape == (40,)
    assert set(equal.tolist()) <= {0, 1, 2, 3}


def test_k_means_follows_its_seed() -> None:
    points = _points(200)
    once, again, other = (k_means(points, 9, np.random.default_rng(seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(once, again)
    assert (once != other).any()

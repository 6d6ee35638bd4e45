import numpy as np

from worker.scoring.layout import two_dimensions


def test_same_seed_same_map() -> None:
    points = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    points[1] = points[0]  # equal items
    first, second = (two_dimensions(points, np.random.default_rng(1), 1, lambda done: None) for _ in range(2))
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)

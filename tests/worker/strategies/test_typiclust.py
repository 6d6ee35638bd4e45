import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.arrays import Floats, Ints
from worker.strategies import typiclust
from worker.strategies.typiclust import TypiClust, typicality


def _plain(points: Floats, cluster: Ints) -> list[float]:
    found = []
    for row, point in enumerate(points):
        others = [other for other in np.flatnonzero(cluster == cluster[row]) if other != row]
        nearest = sorted(float(np.linalg.norm(point - points[other])) for other in others)
        counted = nearest[: max(1, min(20, (len(others) + 1) // 2))]
        found.append(1 / (sum(counted) / len(counted) + 1e-5) if counted else 0.0)
    return found


def test_typicality_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(900, 4)).astype(np.float32)
    cluster = np.concatenate([[31, 40, 40], rng.integers(30, size=697), np.full(200, 30)])

    found = typicality(points, cluster, rng)

    np.testing.assert_allclose(found, _plain(points, cluster), rtol=1e-3)


def test_of_one_item_there_is_nothing_typical() -> None:
    found = typicality(np.ones((1, 3), np.float32), np.array([0]), np.random.default_rng(0))

    assert found.tolist() == [0]


def test_of_a_crowd_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typiclust, "_CROWD", 40)
    points = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)

    found = typicality(points, np.zeros(100, np.int64), np.random.default_rng(0))

    assert (found > 0).sum() == 40


def test_clusters_without_a_label_come_first() -> None:
    truth = np.repeat([0, 1, 2], [60, 40, 30])
    rng = np.random.default_rng(1)
    embeddings = (np.eye(3)[truth] * 10 + rng.normal(size=(130, 3)) * 0.1).astype(np.float16)
    classes = np.where(np.arange(130) == 0, 0, -1)  # the largest cluster has a label
    pool = make_pool(n=130, embeddings=embeddings, classes=classes, available=classes < 0)

    assert truth[TypiClust().select(pool, 2, np.random.default_rng(0)).items].tolist() == [1, 2]

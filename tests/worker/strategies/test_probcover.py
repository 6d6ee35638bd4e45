import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.arrays import Bools, Floats, Ints
from worker.strategies import probcover
from worker.strategies.probcover import ProbCover, cover, pure_radius, within


def _directions(n: int, seed: int = 0) -> Floats:
    points = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def _plain_cover(balls: Bools, covered: Bools, n: int) -> tuple[list[int], list[int]]:
    covered, picks, gains = covered.copy(), [], []
    for _ in range(n):
        newly = [
            sum(balls[p, c] and not covered[p] for p in range(len(balls))) for c in range(balls.shape[1])
        ]
        if max(newly) == 0:
            break
        picks.append(newly.index(max(newly)))
        gains.append(max(newly))
        covered |= balls[:, picks[-1]]
    return picks, gains


@pytest.mark.parametrize("n", [5, 60])
def test_cover_is_greedy(n: int) -> None:
    rng = np.random.default_rng(0)
    balls, covered = rng.random((80, 60)) < 0.06, rng.random(80) < 0.2

    picks, gains = cover(balls, covered, n)

    assert (picks.tolist(), gains.tolist()) == _plain_cover(balls, covered, n)


def test_within_is_a_distance_of_at_most_the_radius() -> None:
    candidates, points = _directions(30), _directions(50, seed=1)
    distances = np.linalg.norm(points[:, None] - candidates, axis=2)

    np.testing.assert_array_equal(within(candidates, points, 0.7), distances <= 0.7)


def _plain_purity(points: Floats, cluster: Ints, radius: float) -> float:
    balls = np.linalg.norm(points[:, None] - points, axis=2) <= radius
    return float(np.mean([len(set(cluster[ball].tolist())) == 1 for ball in balls]))


def test_pure_radius_is_the_largest_with_pure_balls() -> None:
    points = _directions(200)
    cluster = (points[:, 0] > 0).astype(np.int64)

    radius = pure_radius(points, cluster, 0.8)

    assert _plain_purity(points, cluster, radius) >= 0.8
    assert _plain_purity(points, cluster, radius + 0.025) < 0.8
    assert pure_radius(points, np.zeros(200, np.int64), 0.95) == probcover._RADII[-1]


def test_what_the_labels_cover_is_not_covered_again() -> None:
    truth = np.repeat([0, 1], [100, 30])
    rng = np.random.default_rng(0)
    embeddings = (np.eye(2)[truth] * 4 + rng.normal(size=(130, 2)) * 0.2).astype(np.float16)
    classes = np.where(np.arange(130) < 10, 0, -1)
    pool = make_pool(n=130, n_classes=2, embeddings=embeddings, classes=classes, available=classes < 0)

    assert truth[ProbCover().select(pool, 1, rng).items[0]] == 1


def test_beyond_the_sample_the_rest_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probcover, "_SAMPLE", 50)
    pool = make_pool(n=200)

    found = ProbCover().select(pool, 150, np.random.default_rng(0))

    assert len(np.unique(found.items)) == 150
    assert found.scores[0] > 0
    assert found.scores[-1] == 0

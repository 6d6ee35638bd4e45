import numpy as np
import pytest

from worker.arrays import Floats
from worker.selection import seeding
from worker.selection.seeding import farthest_first, plus_plus, squared_distances, squared_lengths


def _points(m: int, d: int = 5, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(m, d)).astype(np.float32)


def _plain_farthest_first(points: Floats, n: int, distances: Floats) -> list[int]:
    distances, picks = distances.copy(), []
    for _ in range(n):
        best = max(range(len(points)), key=lambda row: distances[row])
        picks.append(best)
        for row in range(len(points)):
            distances[row] = min(distances[row], float(((points[row] - points[best]) ** 2).sum()))
        distances[picks] = -1
    return picks


@pytest.mark.parametrize("working_set", [1, 7, 50, 1000])
def test_farthest_first_is_greedy_k_center(monkeypatch: pytest.MonkeyPatch, working_set: int) -> None:
    monkeypatch.setattr(seeding, "_WORKING_SET", working_set)
    monkeypatch.setattr(seeding, "_ROWS", 64)
    points = _points(300)
    start = ((points - points[3]) ** 2).sum(axis=1)

    picks, found = farthest_first(points, 60, start)

    assert picks.tolist() == _plain_farthest_first(points, 60, start)
    assert (np.diff(found) <= 1e-5).all()
    assert found[0] == start.max()


def test_farthest_first_takes_everything_when_all_coincide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "_WORKING_SET", 16)

    picks, found = farthest_first(np.ones((40, 3), np.float32), 40, np.full(40, np.inf, np.float32))

    assert sorted(picks.tolist()) == list(range(40))
    assert (found[1:] == 0).all()


def test_distances_of_outer_products_are_those_of_the_products() -> None:
    first, second = _points(20, 4), _points(20, 3, seed=1)
    outer = (first[:, :, None] * second[:, None, :]).reshape(20, 12)
    rows, others = np.array([0, 5, 9]), np.array([2, 5])
    plain = ((outer[rows][:, None] - outer[others][None]) ** 2).sum(axis=2)

    np.testing.assert_allclose(squared_distances([first, second], rows, others), plain, atol=1e-4)
    np.testing.assert_allclose(squared_lengths([first, second]), (outer**2).sum(axis=1), rtol=1e-5)


def test_plus_plus_draws_by_squared_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often each item is the second and the third pick, against the probabilities of a plain loop."""
    monkeypatch.setattr(seeding, "_PROPOSALS", 4)
    points, draws = _points(6, 2), 4_000
    rng = np.random.default_rng(0)
    pairs = np.zeros((6, 6))
    for _ in range(draws):
        _, second, third = plus_plus([points], 3, 0, rng)
        pairs[second, third] += 1 / draws

    squared = ((points[:, None] - points) ** 2).sum(axis=2)
    expected = np.zeros((6, 6))
    for second in range(6):
        left = np.minimum(squared[0], squared[second])
        expected[second] = squared[0, second] / squared[0].sum() * left / left.sum()
    assert np.abs(pairs - expected).max() < 4 * np.sqrt(expected.max() / draws)


def test_plus_plus_takes_what_coincides_last() -> None:
    points = np.repeat(_points(5), 4, axis=0)

    picks = plus_plus([points], 20, 7, np.random.default_rng(0))

    assert picks[0] == 7
    assert len(set((picks[:5] // 4).tolist())) == 5
    assert sorted(picks.tolist()) == list(range(20))


def test_plus_plus_of_few_proposals_needs_many_rounds_but_no_row_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seeding, "_PROPOSALS", 2)
    monkeypatch.setattr(seeding, "_ROWS", 16)

    picks = plus_plus([_points(100)], 80, 0, np.random.default_rng(0))

    assert len(np.unique(picks)) == 80

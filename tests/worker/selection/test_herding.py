from dataclasses import replace

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.arrays import Floats
from worker.selection import herding
from worker.selection.herding import StandardisedSpace, herd, kernel, kernel_width, lazy_greedy
from worker.selection.selections import NotFinite


def _similarity(candidates: int, references: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((candidates, references), np.float32)


def _plain_greedy(
    similarity: Floats, worth: Floats, covered: Floats, n: int, factors: Floats | None = None
) -> tuple[list[int], list[float]]:
    """Looks at every candidate and every reference for every pick."""
    factors = np.ones(len(similarity), np.float32) if factors is None else factors
    covered, picks, gains = covered.copy(), [], []
    for _ in range(n):
        best, best_gain = -1, -1.0
        for k in range(len(similarity)):
            if k in picks:
                continue
            gain = sum(w * max(0.0, s - c) for s, w, c in zip(similarity[k], worth, covered, strict=True))
            gain *= factors[k]
            if gain > best_gain + 1e-7:
                best, best_gain = k, float(gain)
        picks.append(best)
        gains.append(best_gain)
        covered = np.maximum(covered, similarity[best])
    return picks, gains


def test_lazy_greedy_is_greedy() -> None:
    similarity = _similarity(150, 40)
    rng = np.random.default_rng(1)
    worth, covered = rng.random(40, np.float32), rng.random(40, np.float32) * 0.7

    picks, gains = lazy_greedy(similarity, worth, covered, 25)

    plain_picks, plain_gains = _plain_greedy(similarity, worth, covered, 25)
    assert picks.tolist() == plain_picks
    np.testing.assert_allclose(gains, plain_gains, atol=1e-5)


def test_lazy_greedy_is_greedy_with_factors_too() -> None:
    similarity = _similarity(150, 40)
    rng = np.random.default_rng(1)
    worth, covered = rng.random(40, np.float32), rng.random(40, np.float32) * 0.7
    factors = rng.random(150, np.float32)

    picks, gains = lazy_greedy(similarity, worth, covered, 25, factors)

    plain_picks, plain_gains = _plain_greedy(similarity, worth, covered, 25, factors)
    assert picks.tolist() == plain_picks
    np.testing.assert_allclose(gains, plain_gains, atol=1e-5)


def test_lazy_greedy_takes_everything_when_nothing_is_left_to_gain() -> None:
    similarity = np.ones((300, 5), np.float32)

    picks, gains = lazy_greedy(similarity, np.ones(5, np.float32), np.zeros(5, np.float32), 300)

    assert sorted(picks.tolist()) == list(range(300))
    assert gains[0] == 5
    assert (gains[1:] == 0).all()


def test_kernel_is_one_at_no_distance_and_falls_with_the_squared_distance() -> None:
    points = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)

    found = kernel(points, points[:1], 2.0)

    np.testing.assert_allclose(found[:, 0], [1, np.exp(-1), np.exp(-2)], rtol=1e-6)


def test_kernel_narrows_as_labels_come_in() -> None:
    pool = make_pool(n=1000)
    rows = np.arange(1000)
    points = StandardisedSpace(pool, rows).of(rows)

    widths = [kernel_width(points, labels) for labels in (1, 10, 100, 500, 100_000)]

    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2 * widths[2]
    assert widths[3] == widths[4] > 0


def test_directions_are_standardised_and_of_length_one() -> None:
    pool = make_pool(n=400)
    embeddings = pool.embeddings.astype(np.float32) * np.array([1, 100, 0.01, 1, 1, 0], np.float32) + 7
    stretched = replace(pool, embeddings=embeddings.astype(np.float16))
    rows = np.arange(400)

    plain, found = (StandardisedSpace(p, rows).of(rows) for p in (pool, stretched))

    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert (found[:, 5] == 0).all()
    kept = plain[:, :5] / np.linalg.norm(plain[:, :5], axis=1, keepdims=True)
    close = (found[:, [0, 1, 3, 4]] * kept[:, [0, 1, 3, 4]]).sum(axis=1)
    assert np.median(close) > 0.7  # 0.01 + 7 leaves few bits of the third dimension in half precision


def test_what_labeled_items_cover_is_not_covered_again() -> None:
    truth = np.repeat([0, 1], [200, 20])
    embeddings = np.where(truth[:, None] == 0, 1.0, -1.0) * np.ones(4)
    embeddings += np.random.default_rng(0).normal(size=embeddings.shape) * 0.05
    classes = np.full(220, -1)
    classes[:5] = 0
    pool = make_pool(
        n=220, embeddings=embeddings.astype(np.float16), classes=classes, available=classes < 0, round_size=1
    )

    assert truth[herd(pool, 1, None, np.random.default_rng(0)).items[0]] == 1
    bare = replace(pool, classes=np.full(220, -1))
    assert truth[herd(bare, 1, None, np.random.default_rng(0)).items[0]] == 0


def test_weights_say_what_is_worth_covering() -> None:
    pool = make_pool(n=300, n_classes=3)
    far = StandardisedSpace(pool, np.arange(300)).of(np.arange(300))[:, 0]
    weights = (far > np.quantile(far, 0.95)).astype(np.float32)

    first = herd(pool, 1, weights, np.random.default_rng(0)).items[0]

    assert far[first] > np.quantile(far, 0.8)


def test_weights_of_zero_count_as_equal() -> None:
    pool = make_pool()

    found = herd(pool, 9, np.zeros(len(pool), np.float32), np.random.default_rng(0))

    np.testing.assert_array_equal(found.items, herd(pool, 9, None, np.random.default_rng(0)).items)


def test_beyond_what_is_herded_the_rest_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(herding, "HERDED", 10)
    monkeypatch.setattr(herding, "CANDIDATES", 50)
    pool = make_pool(n=200)

    found = herd(pool, 150, None, np.random.default_rng(0))

    assert len(np.unique(found.items)) == 150
    assert (found.scores[:10] > 0).all()
    assert (found.scores[10:] == 0).all()


def test_a_part_of_a_large_pool_stands_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage of all items by 50 picks from a third of the candidates, against picks from all of them."""
    pool = make_pool(n=6_000, n_classes=20, dimensions=16, round_size=50)
    rows = np.arange(len(pool))
    points = StandardisedSpace(pool, rows).of(rows)
    width = kernel_width(points[:3_000], 50)

    def coverage(candidates: int) -> float:
        monkeypatch.setattr(herding, "CANDIDATES", candidates)
        picks = herd(pool, 50, None, np.random.default_rng(0)).items
        return float(kernel(points[picks], points, width).max(axis=0).mean())

    assert coverage(2_000) > 0.96 * coverage(6_000)


def test_a_value_that_is_not_finite_is_named() -> None:
    pool = make_pool(n=50)
    pool.embeddings[17, 2] = np.inf

    with pytest.raises(NotFinite, match="row 17 "):
        herd(pool, 5, None, np.random.default_rng(0))

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.selection.selections import NotFinite, by_score, in_order, mixed


def test_highest_score_first() -> None:
    rng = np.random.default_rng(0)
    rows, scores = rng.permutation(1000), rng.random(1000, np.float32)

    selection = by_score(rows, scores, 50, rng)

    expected = np.argsort(-scores)[:50]
    np.testing.assert_array_equal(selection.items, rows[expected])
    np.testing.assert_array_equal(selection.scores, scores[expected])


def test_equal_scores_come_in_random_order() -> None:
    rows, scores = np.arange(100), np.zeros(100, np.float32)

    firsts = {int(by_score(rows, scores, 1, np.random.default_rng(seed)).items[0]) for seed in range(200)}

    assert len(firsts) > 50


def test_scores_never_rise() -> None:
    selection = in_order(np.array([4, 2, 9, 1]), np.array([0.5, 0.9, 0.2, 0.3]))

    assert selection.items.tolist() == [4, 2, 9, 1]
    np.testing.assert_allclose(selection.scores, [0.5, 0.5, 0.2, 0.2])


def test_nothing_to_order() -> None:
    assert (
        len(by_score(np.empty(0, np.int64), np.empty(0, np.float32), 5, np.random.default_rng(0)).items) == 0
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_names_the_row_that_is_not_finite(value: float) -> None:
    scores = np.zeros(5, np.float32)
    scores[2] = value

    with pytest.raises(NotFinite, match="row 30 of the pool"):
        by_score(np.arange(10, 60, 10), scores, 3, np.random.default_rng(0))


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_share_of_the_places_is_random(share: float) -> None:
    pool = make_pool(n=1_000)
    ours = in_order(pool.candidates[:200], np.linspace(1, 0, 200, dtype=np.float32))

    found = mixed(ours, pool, share, np.random.default_rng(0))

    assert len(set(found.items.tolist())) == 200
    assert set(found.items.tolist()) <= set(pool.candidates.tolist())
    first = ours.items[: int(0.8 * share * 200)]
    assert set(first.tolist()) <= set(found.items.tolist())
    assert len(np.setdiff1d(found.items, ours.items)) > 0.6 * (1 - share) * 200
    np.testing.assert_array_equal(found.scores, ours.scores)


def test_a_pool_of_which_all_is_selected_is_only_mixed() -> None:
    pool = make_pool(n=50)
    ours = in_order(pool.candidates, np.ones(len(pool.candidates), np.float32))

    found = mixed(ours, pool, 0.5, np.random.default_rng(0))

    assert sorted(found.items.tolist()) == sorted(ours.items.tolist())

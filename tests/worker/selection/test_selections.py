import numpy as np
import pytest

from worker.selection.selections import NotFinite, by_score, in_order


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

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.uncertainty import clustered_margin, top_two, unsureness


def test_unsureness_is_one_minus_the_margin() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [1, 0, 0], [0.4, 0.4, 0.2]], np.float32)

    np.testing.assert_allclose(unsureness(probabilities), [0.8, 0, 1], atol=1e-6)


def test_top_two_of_one_class() -> None:
    first, second = top_two(np.ones((3, 1), np.float32))

    assert first.tolist() == [1, 1, 1]
    assert second.tolist() == [0, 0, 0]


def test_a_batch_has_no_near_duplicates() -> None:
    """Ten groups of equal items, all unsure: margin alone would take one group, clusters take all of them."""
    group = np.repeat(np.arange(10), 5)
    embeddings = np.random.default_rng(0).normal(size=(10, 8))[group].astype(np.float16)
    unsure = (0.5 + group / 1000).astype(np.float32)  # group 0 is the most unsure
    probabilities = np.column_stack([unsure, 1 - unsure])
    pool = make_pool(n=50, n_classes=2, embeddings=embeddings, probabilities=probabilities)

    batch = clustered_margin(pool, probabilities, 10, np.random.default_rng(0)).items

    assert sorted(group[batch].tolist()) == list(range(10))


@pytest.mark.parametrize("n", [10, 35])
def test_takes_from_the_smallest_margins_only(n: int) -> None:
    pool = make_pool(n=500, head=True)
    assert pool.probabilities is not None
    scores = unsureness(pool.probabilities)

    items = clustered_margin(pool, pool.probabilities, n, np.random.default_rng(0)).items

    rounds = -(-n // pool.round_size)
    eligible = np.sort(scores)[::-1][4 * pool.round_size + rounds * pool.round_size - 1]
    assert scores[items].min() >= eligible
    assert scores[items[0]] == scores.max()

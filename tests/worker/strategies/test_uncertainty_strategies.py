"""The strategies that order items by one number: pt4al-easy, least-confidence, entropy."""

import math

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.strategies import strategies

PROBABILITIES = np.array(
    [[0.9, 0.1, 0], [0.5, 0.5, 0], [0.45, 0.3, 0.25], [1, 0, 0], [0.52, 0.24, 0.24]], np.float32
)


@pytest.mark.parametrize(
    ("name", "order", "best"),
    [
        ("least-confidence", [2, 1, 4, 0, 3], 0.55),
        ("entropy", [2, 4, 1, 0, 3], -sum(p * math.log(p) for p in (0.45, 0.3, 0.25))),
        ("margin", [1, 2, 4, 0, 3], 1.0),
    ],
)
def test_most_uncertain_first(name: str, order: list[int], best: float) -> None:
    pool = make_pool(n=5, probabilities=PROBABILITIES)

    found = strategies()[name]().select(pool, 5, np.random.default_rng(0))

    assert found.items.tolist() == order
    assert found.scores[0] == pytest.approx(best, abs=1e-6)
    assert found.scores[-1] == pytest.approx(0, abs=1e-6)


def test_easiest_first() -> None:
    losses = np.array([1.9e-05, 9.1, 0.3, 2.2], np.float32)
    pool = make_pool(n=4, pretext_losses=losses)

    found = strategies()["pt4al-easy"]().select(pool, 3, np.random.default_rng(0))

    assert found.items.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(found.scores, -losses[[0, 2, 3]])

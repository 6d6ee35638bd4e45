from dataclasses import replace

import numpy as np

from tests.worker.pools import make_pool
from worker.arrays import Floats
from worker.selection.herding import StandardisedSpace
from worker.strategies.dropquery import DropQuery, linear_head


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_the_stand_in_for_a_linear_head_is_that_head() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 8)).astype(np.float32)
    probabilities = _softmax(inputs @ rng.normal(size=(8, 5)).astype(np.float32) + rng.random(5, np.float32))

    weights, bias = linear_head(inputs, probabilities)

    np.testing.assert_allclose(_softmax(inputs @ weights + bias), probabilities, atol=1e-4)


def test_picks_where_dropout_changes_the_class() -> None:
    """By the views of a plain loop."""
    pool = make_pool(n=600, dimensions=12, head=True)
    rng = np.random.default_rng(5)
    everything = np.arange(600)
    inputs = StandardisedSpace(pool, everything).standardised(everything)
    weights = rng.normal(size=(12, 3)).astype(np.float32)
    pool = replace(pool, probabilities=_softmax(inputs @ weights))
    likeliest = (inputs @ weights).argmax(axis=1)
    changed = np.zeros(600)
    for _ in range(40):
        for row in range(600):
            view = np.where(rng.random(12) < 0.25, inputs[row], 0)
            changed[row] += ((view @ weights).argmax() != likeliest[row]) / 40

    items = DropQuery(views=25).select(pool, 30, np.random.default_rng(0)).items

    assert changed[items].mean() > changed.mean() + 0.05


def test_where_too_few_are_unsure_the_rest_follows() -> None:
    pool = make_pool(n=60, labeled=10, head=True)
    certain = np.tile(np.array([[1, 0, 0]], np.float32), (60, 1))

    found = DropQuery().select(replace(pool, probabilities=certain), 50, np.random.default_rng(0))

    assert sorted(found.items.tolist()) == pool.candidates.tolist()

import math

import numpy as np
import torch

from tests.worker.pools import make_pool
from worker.strategies.bald import BALD, fit_heads, mutual_information


def test_mutual_information_is_that_of_a_plain_loop() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), size=(20, 3)).astype(np.float32)

    def entropy(row: list[float]) -> float:
        return -sum(p * math.log(p) for p in row)

    expected = [
        entropy(item.mean(axis=0).tolist()) - sum(entropy(head.tolist()) for head in item) / 3
        for item in probabilities
    ]
    np.testing.assert_allclose(mutual_information(probabilities), expected, atol=1e-5)


def test_heads_that_agree_say_nothing_however_unsure() -> None:
    unsure = np.full((1, 5, 2), 0.5, np.float32)
    divided = np.array([[[1, 0], [0, 1]]], np.float32)

    assert mutual_information(unsure).tolist() == [0]
    np.testing.assert_allclose(mutual_information(divided), math.log(2), rtol=1e-5)


def test_heads_are_at_the_minimum_of_their_own_weighted_loss() -> None:
    """The gradient of each, written out."""
    rng = np.random.default_rng(0)
    inputs, classes = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(3, size=60)
    weights = rng.exponential(size=(60, 2)).astype(np.float32)

    heads = fit_heads(inputs, classes, 3, weights).numpy()

    for head in range(2):
        logits = inputs @ heads[:-1, head] + heads[-1, head]
        misses = torch.softmax(torch.from_numpy(logits), 1).numpy() - np.eye(3)[classes]
        gradient = inputs.T @ (weights[:, head, None] * misses) + heads[:-1, head]
        assert np.abs(gradient).max() < 0.05
        assert np.abs((weights[:, head, None] * misses).sum(axis=0)).max() < 0.05


def test_asks_between_the_classes() -> None:
    """Items between two labeled clusters before items inside them."""
    rng = np.random.default_rng(0)
    place = np.concatenate([np.full(60, -3.0), np.full(60, 3.0), rng.uniform(-0.5, 0.5, 20)])
    embeddings = np.column_stack([place, rng.normal(size=(140, 3))]).astype(np.float16)
    classes = np.full(140, -1)
    classes[:20], classes[60:80] = 0, 1
    pool = make_pool(
        n=140, n_classes=2, head=True, embeddings=embeddings, classes=classes, available=classes < 0
    )

    items = BALD().select(pool, 10, np.random.default_rng(0)).items

    assert (items >= 120).mean() >= 0.6

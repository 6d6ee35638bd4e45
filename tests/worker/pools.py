"""Pools for tests of strategies: random clusters, one per class."""

from dataclasses import replace
from typing import Any

import numpy as np

from worker.selection.pool_view import PoolView


def make_pool(
    *,
    n: int = 120,
    dimensions: int = 6,
    n_classes: int = 3,
    labeled: int = 0,
    head: bool = False,
    seed: int = 0,
    several: bool = False,
    **values: Any,
) -> PoolView:
    """`labeled` random items are labeled truly; `head` gives probabilities that follow the clusters. several: items of
    a cluster have its class and the next one, but for the first cluster, which has none.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    centers = rng.normal(size=(n_classes, dimensions)) * 3
    embeddings = centers[truth] + rng.normal(size=(n, dimensions))
    classes = np.full(n, -1)
    known = rng.permutation(n)[:labeled]
    classes[known] = truth[known]
    probabilities = None
    if head:
        distances = ((embeddings[:, None] - centers) ** 2).sum(axis=2)
        logits = -distances / 10
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    pool = PoolView(
        embeddings=embeddings.astype(np.float16),
        pretext_losses=rng.random(n, np.float32),
        available=classes < 0,
        classes=classes,
        probabilities=probabilities,
        n_classes=n_classes,
        round_size=10,
        labels_used=labeled,
    )
    return replace(of_several(pool, truth) if several else pool, **values)


def of_several(pool: PoolView, truth: np.ndarray) -> PoolView:
    """The pool with clusters `truth` (n,), as a project sees it whose items have several classes."""
    sets = np.eye(pool.n_classes, dtype=np.int64)
    sets = np.maximum(sets, np.roll(sets, 1, axis=1))
    sets[0] = 0
    members = np.where(pool.labeled[:, None], sets[truth], 0)
    told = pool.probabilities
    return replace(
        pool,
        classes=np.where(pool.labeled, 0, -1),
        members=members,
        probabilities=None if told is None else (told @ sets.astype(np.float32)).clip(0, 1),
    )

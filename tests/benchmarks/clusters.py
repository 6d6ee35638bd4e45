"""A small pool of clusters in place of an embedded one."""

import numpy as np

from benchmarks.labels.embeddings import Embedded


def make_embedded(
    *, items: int = 300, classes: int = 3, junk: int = 0, copies: int = 0, seed: int = 0
) -> Embedded:
    """Clusters that touch, one a class. The last `junk` rows are far from all and have no class; the `copies` rows
    before them repeat row 0.
    """
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, 8)) * 2
    truth = rng.integers(classes, size=items)
    points = centers[truth] + rng.normal(size=(items, 8))
    groups = np.arange(items)
    copied = slice(items - junk - copies, items - junk)
    points[copied], truth[copied], groups[copied] = points[0], truth[0], 0
    points[items - junk :], truth[items - junk :] = 20, -1
    test = np.arange(90) % classes
    return Embedded(
        key="clusters",
        embeddings=points.astype(np.float16),
        pretext_losses=rng.random(items, np.float32),
        classes=truth,
        groups=groups,
        copies=np.column_stack([np.flatnonzero(groups == 0)[1:], np.zeros(copies, np.int64)]),
        thumbnails=np.zeros((items, 6), np.uint8),  # all alike
        test_embeddings=(centers[test] + rng.normal(size=(90, 8))).astype(np.float16),
        test_classes=test,
    )

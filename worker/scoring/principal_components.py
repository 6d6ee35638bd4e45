"""Principal components of features that are many and redundant, such as pixels."""

import numpy as np
from sklearn.utils.extmath import randomized_svd

from worker.arrays import Floats

_FITTED = 5_000  # rows that the directions are fitted on


def principal_components(features: Floats, dimensions: int, rng: np.random.Generator) -> Floats:
    """(n, d) -> (n, at most `dimensions`) float32: along the directions of largest variance, in units of the first
    one's standard deviation.

    Halko et al. 2011, Finding structure with randomness, https://arxiv.org/abs/0909.4061
    """
    some = features[np.sort(rng.choice(len(features), min(len(features), _FITTED), replace=False))]
    mean = some.mean(axis=0)
    count = min(dimensions, *some.shape)
    directions = randomized_svd(some - mean, count, n_iter=4, random_state=int(rng.integers(2**31)))[2]
    found = (features - mean) @ directions.T
    return np.asarray(found / max(float(found[:, 0].std()), 1e-12), dtype=np.float32)

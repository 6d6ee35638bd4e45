"""Principal components of features that are many and redundant, such as pixels."""

import numpy as np
import torch

from worker.arrays import Floats

_FITTED = 5_000  # rows that the directions are fitted on
_OVERSAMPLED = 10  # directions more than are asked for, without which the last of them are not exact


def principal_components(features: Floats, dimensions: int, rng: np.random.Generator) -> Floats:
    """(n, d) -> (n, at most `dimensions`) float32: along the directions of largest variance, in units of the first
    one's standard deviation.

    Halko et al. 2011, Finding structure with randomness, https://arxiv.org/abs/0909.4061
    """
    some = features[np.sort(rng.choice(len(features), min(len(features), _FITTED), replace=False))]
    mean = some.mean(axis=0)
    wider = min(dimensions + _OVERSAMPLED, *some.shape)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(rng.integers(2**31)))
        directions = torch.svd_lowrank(torch.from_numpy(some - mean), wider, niter=2)[2].numpy()
    found = (features - mean) @ directions[:, :dimensions]
    return np.asarray(found / max(float(found[:, 0].std()), 1e-12), dtype=np.float32)

"""Measures of a head's uncertainty. Shared by the uncertainty strategies."""

import numpy as np

from worker.arrays import Floats

_ROWS = 65_536  # at a time, so that no copy of a large pool's probabilities is made


def top_two(probabilities: Floats) -> tuple[Floats, Floats]:
    """(n, c) -> the largest and the second largest probability, (n,) each; with one class the second is 0."""
    if probabilities.shape[1] == 1:
        return probabilities[:, 0], np.zeros(len(probabilities), np.float32)
    two = np.empty((len(probabilities), 2), probabilities.dtype)
    for start in range(0, len(probabilities), _ROWS):
        two[start : start + _ROWS] = np.partition(probabilities[start : start + _ROWS], -2, axis=1)[:, -2:]
    return two[:, 1], two[:, 0]


def one_minus_margin(probabilities: Floats) -> Floats:
    """1 - margin, (n, c) -> (n,) in [0, 1]; the margin: the largest minus the second largest probability."""
    first, second = top_two(probabilities)
    return np.asarray(1 - (first - second), dtype=np.float32)


def entropies(probabilities: Floats) -> Floats:
    """(n, c) -> (n,) in nats."""
    found = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), _ROWS):
        block = probabilities[start : start + _ROWS]
        found[start : start + _ROWS] = -(block * np.log(np.maximum(block, 1e-30))).sum(axis=1)
    return found

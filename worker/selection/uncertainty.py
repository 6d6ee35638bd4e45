"""Measures of a head's uncertainty. Shared by the uncertainty strategies.

Where an item may have several classes, each class is a question of its own, with a yes and a no; the measure of an item
is the mean of the measures of these (docs/decisions/0030-several-classes-an-item.md says why).
"""

from collections.abc import Callable

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


def _mean_of_questions(probabilities: Floats, measure: Callable[[Floats], Floats]) -> Floats:
    """(n, c) -> (n,) the mean over classes of a measure of probabilities (b, c), one by one."""
    found = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), _ROWS):
        found[start : start + _ROWS] = measure(probabilities[start : start + _ROWS]).mean(axis=1)
    return found


def likeliest(probabilities: Floats, several: bool = False) -> Floats:
    """(n, c) -> (n,) the probability of the likeliest answer."""
    if several:
        return _mean_of_questions(probabilities, lambda block: np.maximum(block, 1 - block))
    return np.asarray(probabilities.max(axis=1))


def one_minus_margin(probabilities: Floats, several: bool = False) -> Floats:
    """1 - margin, (n, c) -> (n,) in [0, 1]; the margin: the largest minus the second largest probability."""
    if several:
        return _mean_of_questions(probabilities, lambda block: 1 - np.abs(2 * block - 1))
    first, second = top_two(probabilities)
    return np.asarray(1 - (first - second), dtype=np.float32)


def entropies(probabilities: Floats, several: bool = False) -> Floats:
    """(n, c) -> (n,) in nats."""
    if several:
        return _mean_of_questions(probabilities, lambda block: _terms(block) + _terms(1 - block))
    found = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), _ROWS):
        block = probabilities[start : start + _ROWS]
        found[start : start + _ROWS] = _terms(block).sum(axis=1)
    return found


def _terms(probabilities: Floats) -> Floats:
    """-p ln p"""
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, 1e-30))))

"""Strategy `uherding`."""

import numpy as np

from worker.selection.herding import MORE_REFERENCES, herd
from worker.selection.pool_view import PoolView, Selection
from worker.selection.uncertainty import one_minus_margin
from worker.strategies import Strategy


class UHerding(Strategy):
    """Covers the pool where the head is unsure: as `maxherding`, each item weighted by 1 - its margin.

    Good with few labels and with many. Without a head it is `maxherding`. Score: the share of the head's doubt
    an item newly covers.

    Bae et al. 2025, Uncertainty Herding: One Active Learning Method for All Label Budgets,
    https://arxiv.org/abs/2412.20644

    What differs: probabilities are the head's calibrated ones (the paper fits its own temperature), the kernel
    narrows with the number of labels (there with the distances between them), and the limits on large pools
    are those of `maxherding`.
    """

    name = "uherding"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        weights = None if pool.probabilities is None else one_minus_margin(pool.probabilities, pool.several)
        return herd(pool, n, weights, rng, references=MORE_REFERENCES)

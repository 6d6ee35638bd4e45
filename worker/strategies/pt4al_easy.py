"""Strategy `pt4al-easy`."""

import numpy as np

from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score
from worker.strategies import Strategy


class PT4ALEasy(Strategy):
    """The items with the lowest pretext loss first: PT4AL's order turned round. Score: minus the loss.

    Typical, well-learned items come first and junk last, but also much of the same. Needs no head.

    Yi et al. 2022, PT4AL: Using Self-Supervised Pretext Tasks for Active Learning,
    https://arxiv.org/abs/2201.07459 (its sorting by pretext loss; there, hardest first)
    """

    name = "pt4al-easy"

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        candidates = pool.candidates
        return by_score(candidates, -pool.pretext_losses[candidates], n, rng)

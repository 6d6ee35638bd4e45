"""Strategy `pt4al`."""

import numpy as np
from pydantic import Field

from worker.arrays import Floats, Ints
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_score, in_order, refuse_not_finite
from worker.selection.uncertainty import likeliest
from worker.strategies import ColdStart, Strategy


class PT4AL(Strategy):
    """Hardest pretext loss first, in strata: PT4AL as its paper describes it.

    The pool is sorted by pretext loss from high to low and cut into `rounds` equal strata. Round 0 takes even
    intervals of the hardest stratum; round r takes from stratum r the items with the lowest top-1
    probability of the head. Needs a head after round 0.

    Yi et al. 2022, PT4AL: Using Self-Supervised Pretext Tasks for Active Learning,
    https://arxiv.org/abs/2201.07459

    What differs from the reference code: losses are sorted as numbers (there as text, so that 1.9e-05
    counts as harder than 9.1 and most of its "hardest" stratum is among the easiest); probabilities are the
    head's calibrated ones (there the logits are L2-normalised before the softmax); nothing is chosen on the
    test set. What the paper leaves open: the round is labels used // round_size; where a stratum runs out
    the next one follows, from the last the first; after the last round the strata come again.
    """

    name = "pt4al"

    rounds: int = Field(
        10, ge=1, le=10_000, description="strata the pool is cut into, one for each planned round"
    )

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        current = pool.labels_used // pool.round_size
        if current > 0 and pool.probabilities is None:
            raise ColdStart
        refuse_not_finite(np.arange(len(pool)), pool.pretext_losses)
        hardest_first = np.argsort(-pool.pretext_losses, kind="stable")
        strata = np.array_split(hardest_first, self.rounds)
        items, scores = [], []
        for turn in range(self.rounds):
            stratum = strata[(current + turn) % self.rounds]
            if current == 0 or pool.probabilities is None:
                spread = stratum[even_intervals(len(stratum), pool.round_size)]
                rows = spread[pool.available[spread]]
                within = np.linspace(1, 0, len(rows), endpoint=False, dtype=np.float32)
            else:
                rows, within = self._least_sure(stratum[pool.available[stratum]], pool, rng)
            items.append(rows)
            scores.append(
                within + (self.rounds - 1 - turn)
            )  # 0..1 inside a stratum, 1 from stratum to stratum
        return in_order(np.concatenate(items)[:n], np.concatenate(scores)[:n])

    def _least_sure(self, rows: Ints, pool: PoolView, rng: np.random.Generator) -> tuple[Ints, Floats]:
        assert pool.probabilities is not None
        ordered = by_score(rows, 1 - likeliest(pool.probabilities[rows], pool.several), len(rows), rng)
        return ordered.items, ordered.scores


def even_intervals(length: int, size: int) -> Ints:
    """All of range(length): first `size` at even intervals, then `size` of the remaining at even intervals, …

    The intervals lie on the whole stratum, so they stay where they are while its items get labeled.
    """
    rest, passes = np.arange(length), []
    while len(rest):
        steps = np.arange(min(size, len(rest)), dtype=np.int64) * len(rest) // min(size, len(rest))
        passes.append(rest[steps])
        rest = np.delete(rest, steps)
    return np.concatenate([np.empty(0, np.int64), *passes])

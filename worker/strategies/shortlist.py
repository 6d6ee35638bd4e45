"""Strategy `shortlist`, the default."""

import numpy as np
from pydantic import Field

from worker.arrays import Floats
from worker.selection.herding import MORE_REFERENCES, herd
from worker.selection.pool_view import PoolView, Selection
from worker.selection.spaces import PoolSpace
from worker.selection.uncertainty import one_minus_margin
from worker.strategies import Strategy

_MOST_OF_A_GROUP = np.float32(3)  # items that near-duplicates count as: of more, copies crowd out the rest


class Shortlist(Strategy):
    """Covers what the head does not know yet, from the first label to the last. The default; needs no head.

    It picks, one after the other, the item whose surroundings hold the most doubt that no labeled or picked item
    covers. Surroundings are those in the whitened space of embeddings and appearance together. Nothing is switched
    over; what changes is measured:

    - First batch, no head: every item counts the same, so the picks are the most typical items of the largest
      unlike groups. Random batches miss whole classes here; this is where most labels are saved.
    - With a head, an item counts by its doubt, 1 - margin of the head's cross-validated, calibrated probabilities.
      While the head knows little it doubts everything alike and the picks still cover the pool; as it learns, they
      move to where classes are confused. The kernel narrows with the number of labels.
    - Of a group of near-duplicates it sees one, which counts as the group does, up to three items: a class that is
      photographed often keeps its weight, and a burst of one scene does not take all.
    - Skewed classes: where the head sees fewer than `balance_below` of the classes in the pool (effective number:
      the exponential of the entropy of its mean prediction), items of classes with few labels count more.
    - The pretext loss weighs in by the end nearest 0 of the interval of its correlation with the head's own loss on
      control items: not at all while that interval covers 0.

    Doubt counts once, for what is covered, and not again for the item itself: what one head doubts is partly its own
    affair, and models that took no part in the choice gain less from it (docs/decisions/0025-doubt-counts-once.md).

    Bae et al. 2025, Uncertainty Herding: One Active Learning Method for All Label Budgets,
    https://arxiv.org/abs/2412.20644; the kernel: Bae et al. 2024, https://arxiv.org/abs/2407.12212

    What differs from `uherding`: surroundings (there: standardised embeddings); groups of near-duplicates are seen as
    one item and count for more; rare classes are balanced; the pretext loss may weigh in; learned junk is left out.
    """

    name = "shortlist"

    balance_below: float = Field(
        0.75,
        ge=0,
        le=1,
        description="balance classes where the pool seems to hold fewer than this share of them; 0 = never",
    )

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        weights = _by_pretext_loss(pool)
        if pool.stands_for is not None:
            weights = weights * np.minimum(pool.stands_for, _MOST_OF_A_GROUP)
        probabilities = pool.probabilities
        if probabilities is None:
            return herd(pool, n, weights, rng, references=MORE_REFERENCES, space_of=PoolSpace)
        rarity = self._rarity(pool, probabilities)
        return herd(
            pool,
            n,
            one_minus_margin(probabilities, pool.several) * rarity * weights,
            rng,
            references=MORE_REFERENCES,
            factors=rarity,
            space_of=PoolSpace,
        )

    def _rarity(self, pool: PoolView, probabilities: Floats) -> Floats:
        """(n,) Expected rarity of an item's class among the labels; 1 where the pool is not skewed."""
        shares = probabilities.mean(axis=0, dtype=np.float64)
        if pool.several:
            shares /= max(shares.sum(), 1e-12)
        effective = np.exp(-(shares * np.log(np.maximum(shares, 1e-12))).sum())
        if effective >= self.balance_below * pool.n_classes:
            return np.ones(len(pool), np.float32)
        labels = pool.labels_of_class + 1  # one more: not by 0
        rarity: Floats = probabilities @ (labels.mean() / labels).astype(np.float32)
        if (
            pool.several
        ):  # the mean of the classes it seems to have, and of a usual one, so that nothing counts as usual
            rarity = np.asarray((rarity + 1) / (probabilities.sum(axis=1) + 1))
        return rarity


def _by_pretext_loss(pool: PoolView) -> Floats:
    """(n,) from 1 - w for the lowest pretext loss to 1 + w for the highest, w the pool's `loss_weight`."""
    if pool.loss_weight == 0:
        return np.ones(len(pool), np.float32)
    ranks = np.empty(len(pool), np.float32)
    ranks[np.argsort(pool.pretext_losses, kind="stable")] = np.linspace(-1, 1, len(pool), dtype=np.float32)
    return 1 + np.float32(pool.loss_weight) * ranks

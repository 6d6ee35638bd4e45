"""The reject head: items that nobody can label, learned from the annotators' own `broken` skips."""

import numpy as np

from worker.arrays import Bools, Floats, Halves
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.selection.selections import refuse_not_finite

BARRED_ABOVE = 0.3  # probability of being broken: one real item lost for two broken ones spared, at worst
# Held-out loss over that of the share alone, 2 to 12 rejects among 20 to 100 labels, 12 draws each: real junk
# 0.02 to 0.69, rejects by mistake 0.74 to 1.5.
_EVIDENCE = 0.7


def broken_probabilities(
    embeddings: Halves | Floats, broken: Bools, labeled: Bools, rng: np.random.Generator
) -> Floats | None:
    """(n,) float32, calibrated: how likely an annotator would reject each item.

    None while nothing can be told: nothing was rejected, or nothing labeled, or rejects held out are hardly
    better predicted than by their share alone. So a few rejects by mistake bar nothing, and neither does a single one.

    embeddings  (n, d)
    broken      (n,) bool  rejected
    labeled     (n,) bool  got a class

    A value that is not finite among those raises `NotFinite` with its row.
    """
    rows = np.flatnonzero(broken | labeled)
    if not broken.any() or not labeled.any():
        return None
    known = embeddings[rows].astype(np.float32)
    refuse_not_finite(rows, known)
    head = LinearHead().fit(LabeledView(known, broken[rows].astype(np.int64), 2), rng)
    share = broken[rows].mean()
    by_share = -share * np.log(share) - (1 - share) * np.log(1 - share)
    if head.held_out_loss is None or head.held_out_loss > _EVIDENCE * by_share:
        return None
    return head.probabilities(embeddings)[:, 1]

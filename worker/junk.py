"""Which items nobody can label, learned from the annotators' own `broken` skips."""

import numpy as np

from worker.heads.linear import LinearHead
from worker.ordering import refuse_not_finite
from worker.pool_view import Bools, Floats, Halves

BARRED_ABOVE = 0.3  # probability of being broken: one real item lost for two broken ones spared, at worst


def broken_probabilities(
    embeddings: Halves | Floats, broken: Bools, labeled: Bools, rng: np.random.Generator
) -> Floats | None:
    """(n,) float32, calibrated: how likely an annotator would reject each item. None while nothing was rejected,
    or nothing labeled: there is nothing to tell apart.

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
    head = LinearHead().fit(known, broken[rows].astype(np.int64), 2, rng)
    return head.probabilities(embeddings)[:, 1]

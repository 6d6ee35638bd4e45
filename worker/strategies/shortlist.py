"""Strategy `shortlist`, the default."""

import numpy as np
from pydantic import Field

from worker.herding import herd
from worker.pool_view import PoolView, Selection
from worker.strategies import Strategy
from worker.uncertainty import clustered_margin, unsureness


class Shortlist(Strategy):
    """First covers the pool, then asks where the head is unsure. The default; needs no head to begin.

    While labels are few it picks the items whose surroundings cover most of the pool in the embeddings
    (kernel herding, with a kernel that narrows as labels come in); once there is a head, surroundings count
    by how unsure it is about them. From `labels_per_class` labels a class on it takes the smallest margins,
    one of each cluster, so that a batch does not ask the same question twice.

    Bae et al. 2024, Generalized Coverage for More Robust Low-Budget Active Learning,
    https://arxiv.org/abs/2407.12212; Bae et al. 2025, Uncertainty Herding, https://arxiv.org/abs/2412.20644;
    Citovsky et al. 2021, Batch Active Learning at Scale, https://arxiv.org/abs/2107.14263
    """

    name = "shortlist"

    labels_per_class: int = Field(
        15,
        ge=1,
        le=100_000,
        description="labels per class (on average) at which covering gives way to asking",
    )

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        if pool.probabilities is None:
            return herd(pool, n, None, rng)
        if int(pool.labeled.sum()) < self.labels_per_class * pool.n_classes:
            return herd(pool, n, unsureness(pool.probabilities), rng)
        return clustered_margin(pool, pool.probabilities, n, rng)

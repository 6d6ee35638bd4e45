"""Strategy `dropquery`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.arrays import Floats, Ints
from worker.selection.clusters import CLUSTERS, in_turns
from worker.selection.herding import StandardisedSpace
from worker.selection.index import k_means_centers, nearest
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_rank, refuse_not_finite
from worker.strategies import ColdStart, Strategy

_FITTED_ON = 5_000
_ROWS = 16_384


class DropQuery(Strategy):
    """Items whose predicted class does not survive dropout, one of each cluster of them. Needs a head.

    `views` times, a random part of the embedding is set to 0; an item is unsure if most views change the
    head's likeliest class. The unsure items are clustered by k-means into as many clusters as are wanted
    (2,000 at most), and of each the item nearest to the center is picked, that of the largest cluster first.
    Where too few are unsure, those of which most views disagree follow. Score: the rank.

    Gupte et al. 2024, Revisiting Active Learning in the Era of Vision Foundation Models,
    https://arxiv.org/abs/2401.14555

    A pool holds the head's probabilities but not the head, so a linear one stands in: least squares of the
    log-probabilities of 5,000 random items on their standardised embeddings. For a linear head this is the
    head itself. Of more than 100,000 unsure items, centers are found on 100,000 random ones.
    """

    name = "dropquery"

    views: int = Field(3, ge=1, le=100, description="how often dropout is tried")
    dropout: float = Field(0.75, gt=0, lt=1, description="share of the embedding set to 0 in a view")

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        if pool.probabilities is None:
            raise ColdStart
        candidates = pool.candidates
        if not len(candidates):
            return by_rank(candidates)
        space = StandardisedSpace.drawn(pool, rng)
        changed = self._changed(pool, pool.probabilities, space, candidates, rng)
        unsure = candidates[changed > self.views / 2]
        order = unsure
        if len(unsure):
            points = space.of(unsure)
            centers = k_means_centers(points, min(n, CLUSTERS, len(unsure)), rng)
            distances, cluster = nearest(points, centers, 1)
            order = unsure[in_turns(cluster[:, 0], -distances[:, 0], np.zeros(len(unsure), np.bool_))]
        sure = np.flatnonzero(changed <= self.views / 2)
        rest = candidates[sure[np.lexsort((rng.random(len(sure)), -changed[sure]))]]
        return by_rank(np.concatenate([order, rest])[:n])

    def _changed(
        self,
        pool: PoolView,
        probabilities: Floats,
        space: StandardisedSpace,
        rows: Ints,
        rng: np.random.Generator,
    ) -> Ints:
        """(m,) -> (m,) the number of views that change the likeliest class; of several, which ones are likely."""

        def told(logits: Floats) -> npt.NDArray[Any]:
            return logits > 0 if pool.several else logits.argmax(axis=1)[:, None]

        fitted_on = rng.choice(len(pool), min(_FITTED_ON, len(pool)), replace=False)
        weights, bias = linear_head(space.standardised(fitted_on), probabilities[fitted_on], pool.several)
        dropped = round(256 * self.dropout)
        changed = np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _ROWS):
            block = rows[start : start + _ROWS]
            refuse_not_finite(block, probabilities[block])
            inputs = space.standardised(block)
            likeliest = told(inputs @ weights + bias)
            for _ in range(self.views):
                kept = np.frombuffer(rng.bytes(inputs.size), np.uint8).reshape(inputs.shape) >= dropped
                views = (inputs * kept) @ weights / (1 - self.dropout) + bias
                changed[start : start + _ROWS] += (told(views) != likeliest).any(axis=1)
        return changed


def linear_head(inputs: Floats, probabilities: Floats, several: bool = False) -> tuple[Floats, Floats]:
    """(m, d), (m, c) -> weights (d, c), bias (c,) whose softmax comes closest to the probabilities, in their
    logarithms; several: the logistic function of each class.
    """
    refuse_not_finite(np.arange(len(inputs)), probabilities)
    logits = np.log(np.maximum(probabilities, 1e-12))
    if several:
        logits -= np.log(np.maximum(1 - probabilities, 1e-12))
    else:
        logits -= logits.mean(axis=1, keepdims=True)
    center, bias = inputs.mean(axis=0), logits.mean(axis=0)
    centered = inputs - center
    curvature = centered.T @ centered + 1e-3 * np.eye(inputs.shape[1], dtype=np.float32)
    weights = np.linalg.solve(curvature, centered.T @ (logits - bias))
    return weights, bias - center @ weights

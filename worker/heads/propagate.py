"""Head `propagate`: semi-supervised. Classes spread over the pool, then `linear` learns from what they reached."""

import numpy as np
import numpy.typing as npt

from worker.heads import FittedHead, Head
from worker.heads.calibration import (
    FOLDS,
    calibrate,
    calibrate_each,
    finite,
    seen_in,
    softened,
    stratified_folds,
    sureness_of,
)
from worker.heads.labeled_view import ItemNetwork, LabeledView
from worker.heads.linear import WORTH_GOING_ON, FittedLinearHead, LinearHead
from worker.heads.logistic import path, threads_for

_PSEUDO_LABELS = 4_000  # random items of the pool; more of them cost time and change little
_TRUST = (0.5, 0.1)  # how much a sure pseudo-label weighs beside a label


class PropagateHead(Head):
    """Learns from the unlabeled pool too: classes spread from the labels to neighbours, `linear` learns from both.

    Best while labels are few (up to about 100 a class), where neighbours in the pool say more than the labels
    alone. Label spreading over the graph of the 10 nearest neighbours (Zhou et al. 2004), found among whitened
    embeddings and what items look like, gives 4,000 random items of the pool a soft class each, weighted by how
    sure it is (1 - entropy / ln c) and by a trust of 0.5 or 0.1. Trust, penalty and temperature are those with
    the lowest loss on labels held out of both steps. In pools of more than 20,000 items a random part of that size
    stands for the pool. Without a pool it is `linear`. Where an item has several classes, each spreads for itself.

    Zhou et al. 2004, Learning with Local and Global Consistency,
    https://proceedings.neurips.cc/paper/2003/hash/87682805257e619d49b8e0dfdc14affa-Abstract.html
    """

    name = "propagate"
    several = True

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        pool, classes, n_classes = view.graph, view.classes, view.n_classes
        if pool is None:
            return LinearHead().fit(view, rng)
        raw = finite(view.embeddings)
        inputs = (raw - pool.mean) / pool.scale
        folds = stratified_folds(classes, rng)
        seen = seen_in(folds)
        chosen = rng.choice(len(pool), min(_PSEUDO_LABELS, len(pool)), replace=False)
        reached = pool.classes_reached(raw, classes, n_classes, seen, chosen)
        sureness = sureness_of(reached, view.several)
        fitted = calibrate_each if view.several else calibrate
        targets = np.repeat(softened(classes, n_classes)[:, None], FOLDS + 1, axis=1)
        points, n = np.concatenate([inputs, pool.points[chosen]]), len(classes)
        lowest = np.inf
        with threads_for(points.size * n_classes):
            for trust in _TRUST:
                counted = np.concatenate([seen, trust * sureness]).astype(np.float32)
                before = np.inf
                goals = np.concatenate([targets, reached])
                for weights, bias, logits in path(points, goals, counted, view.several):
                    temperature, loss = fitted(logits[np.arange(n), folds], classes)
                    if loss < lowest:
                        lowest, best = loss, (weights, bias, temperature)
                    if loss >= WORTH_GOING_ON * before:
                        break
                    before = loss
        weights, bias, temperature = best
        return FittedLinearHead.on_raw(
            weights, bias, pool.mean, pool.scale, temperature, float(lowest), self.name
        )

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        return FittedLinearHead.from_arrays(arrays, self.name)

"""Head `propagate`: semi-supervised. Classes spread over the pool, then `linear` learns from what they reached."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.arrays import Floats, Ints
from worker.heads import FittedHead, Head
from worker.heads.calibration import (
    calibrate,
    calibrate_each,
    finite,
    seen_in,
    softened,
    stratified_folds,
    sureness_of,
)
from worker.heads.labeled_view import ItemNetwork, LabeledView
from worker.heads.linear import (
    WORTH_GOING_ON,
    FittedLinearHead,
    LinearHead,
    Tuning,
    tuning_of,
    without_each,
)
from worker.heads.logistic import PENALTIES, Problems, threads_for
from worker.heads.pool_graph import PoolGraph

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
    asks_pool = True

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        pool, classes = view.graph, view.classes
        if pool is None:
            return LinearHead().fit(view, rng)
        folds = stratified_folds(classes, rng)
        taught = _Taught.of(view, pool, seen_in(folds), rng)
        fitted = calibrate_each if view.several else calibrate
        lowest, start = np.inf, None
        penalties: Sequence[float] = PENALTIES
        with taught.threads():
            for trust in _TRUST:
                before, losses, coefficients = np.inf, [], []
                for found in taught.problems.path(taught.counted(trust), penalties, start):
                    temperature, loss = fitted(found.logits[np.arange(len(view)), folds], classes)
                    losses.append(loss)
                    coefficients.append(found.coefficients)
                    if loss < lowest:
                        lowest, best, tuning = loss, found, Tuning(found.penalty, temperature, trust)
                    if loss >= WORTH_GOING_ON * before:
                        break
                    before = loss
                # With another trust it lies near: one penalty stronger is the first to try.
                near = max(int(np.argmin(losses)) - 1, 0)
                penalties, start = penalties[near:], coefficients[near]
        return FittedLinearHead.on_raw(
            best.weights, best.bias, pool.mean, pool.scale, tuning, float(lowest), self.name
        )

    def cross_fit(
        self, fitted: FittedHead, view: LabeledView, folds: Ints, rng: np.random.Generator
    ) -> Floats:
        if view.graph is None:
            return LinearHead().cross_fit(fitted, view, folds, rng)
        tuning = tuning_of(fitted)
        taught = _Taught.of(view, view.graph, without_each(folds), rng)
        with taught.threads():
            (found,) = taught.problems.path(taught.counted(tuning.trust), [tuning.penalty])
        return tuning.probabilities(found.logits[: len(view)], folds)

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        return FittedLinearHead.from_arrays(arrays, self.name)


@dataclass(frozen=True)
class _Taught:
    """The lessons of f problems: n labeled items, of which each sees (n, f) a part, and k items of the pool. sureness
    (k, f) of the classes that reached those.
    """

    problems: Problems
    seen: Floats
    sureness: Floats
    size: int

    @staticmethod
    def of(view: LabeledView, pool: PoolGraph, seen: Floats, rng: np.random.Generator) -> "_Taught":
        raw, n_classes = finite(view.embeddings), view.n_classes
        chosen = pool.some(_PSEUDO_LABELS, rng)
        reached = pool.classes_reached(raw, view.classes, n_classes, seen, chosen)
        targets = np.repeat(softened(view.classes, n_classes)[:, None], seen.shape[1], axis=1)
        points = np.concatenate([(raw - pool.mean) / pool.scale, pool.points(chosen)])
        return _Taught(
            Problems(points, np.concatenate([targets, reached]), view.several),
            seen,
            sureness_of(reached, view.several),
            points.size * n_classes,
        )

    def counted(self, trust: float) -> Floats:
        """(n + k, f)"""
        return np.concatenate([self.seen, trust * self.sureness]).astype(np.float32)

    def threads(self) -> AbstractContextManager[None]:
        return threads_for(self.size)

"""The gain of labels that the strategy asked for over as many random ones, and the share of the ranking that is the
strategy's for it.

A strategy that wins on the pools it was made for can lose on this one. The control labels are a random selection of
this very pool, so they tell: heads are trained on some of them, and on as many of the strategy's, and both are measured
on the same items that neither saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from worker.arrays import Bools, Floats, Ints
from worker.evaluation.metrics import paired_difference, right_answers, told_apart
from worker.heads import Fit
from worker.heads.labeled_view import LabeledView

LEAST_LABELS = 30  # of either kind: fewer leave an interval that says nothing
_FOLDS = 3
_NONE_BELOW = 0.05  # a share of the strategy's as small as that is none


@dataclass(frozen=True)
class PicksGain:
    """Accuracy by `labels` of the strategy's minus that by as many random ones, on `items`. Interval: 95 %. Of several
    classes an item it is the share of items with all classes right.
    """

    gain: float
    low: float
    high: float
    labels: int
    items: int

    @property
    def as_likely(self) -> float:
        """Probability that the gain is above 0, twice, at most 1: 1 where nothing speaks against the strategy."""
        middle, deviation = (self.low + self.high) / 2, max(self.high - self.low, 1e-9) / (2 * 1.96)
        return min(1.0, 1 + erf(middle / deviation / sqrt(2)))


def picks_gain(
    fit: Fit,
    picked: LabeledView,
    control: LabeledView,
    test: tuple[Floats, Ints] | None,
    rng: np.random.Generator,
) -> PicksGain | None:
    """fit: of a head on embeddings. test: embeddings (t, d) and classes (t,) of the test split, where there is one;
    else control labels are measured on, fold by fold. None below 30 labels of either kind.
    """
    if min(len(picked), len(control)) < LEAST_LABELS:
        return None
    order = rng.permutation(len(control))
    parts = [np.empty(0, np.int64)] if test else np.array_split(order, _FOLDS)
    ours: list[Bools] = []
    random: list[Bools] = []
    for held_out in parts:
        others = np.setdiff1d(order, held_out, assume_unique=True)
        labels = min(len(others), len(picked))
        inputs, truth = test or (control.embeddings[held_out], control.classes[held_out])
        for view, rows, right in (
            (picked, rng.permutation(len(picked)), ours),
            (control, rng.permutation(others), random),
        ):
            taught = view.keep(rows[:labels])
            if not told_apart(taught.classes):
                return None  # no head can be trained
            right.append(right_answers(fit(taught, rng).probabilities(inputs), truth))
    found = paired_difference(np.concatenate(ours), np.concatenate(random))
    return PicksGain(*found, labels=labels, items=sum(len(one) for one in ours))


def share_of_strategy(gains: Sequence[PicksGain]) -> float:
    """In 0..1, from what was measured, the newest first. Two measurements must agree before random gets any share; and
    random takes all once both say that the strategy's labels teach less, beyond noise.
    """
    if len(gains) < 2:
        return 1.0
    share = max(gain.as_likely for gain in gains[:2])
    return share if share >= _NONE_BELOW else 0.0

"""Items that a head is measured on, whose labels it had not seen; and its gain on them over the head before."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from worker.arrays import Bools, Floats, Ints
from worker.evaluation.metrics import (
    losses_of,
    measure,
    measure_several,
    paired_difference,
    rank_correlation,
    right_answers,
)
from worker.heads import FittedHead, Head
from worker.heads.labeled_view import LabeledView

MeasuredOn = Literal["test", "control"]

_FOLDS = 5
_SEED = 0  # of the bootstrap, so that the same answers have the same figures

_NOTHING_MEASURED: dict[str, Any] = {
    "items": 0,
    "accuracy": None,
    "accuracy_low": None,
    "accuracy_high": None,
    "macro_f1": None,
    "nll": None,
    "ece": None,
    "recall": None,
    "confusion": [],
    "reliability": [],
}


@dataclass(frozen=True)
class HeldOut:
    """Items (m,) with true `classes` (m,), or (m, c) of several, and probabilities (m, c) by heads that were not
    trained on them.
    """

    measured_on: MeasuredOn
    ids: Ints
    classes: Ints
    probabilities: Floats

    @cached_property
    def right(self) -> Bools:
        """True where the answer is right; of several classes, all of it."""
        return right_answers(self.probabilities, self.classes)

    def figures(self, pretext_losses: Floats) -> dict[str, Any]:
        """For `Head.metrics`; pretext_losses (m,)"""
        correlation = rank_correlation(pretext_losses, losses_of(self.probabilities, self.classes))
        if self.classes.ndim == 2:
            found = asdict(measure_several(self.probabilities, self.classes, np.random.default_rng(_SEED)))
        else:
            found = asdict(measure(self.probabilities, self.classes))
        return {
            "measured_on": self.measured_on,
            **_NOTHING_MEASURED,
            **found,
            "pretext_loss_correlation": asdict(correlation) if correlation else None,
        }


def nothing_measured() -> dict[str, Any]:
    return {"measured_on": None, **_NOTHING_MEASURED, "pretext_loss_correlation": None}


def answers_held_out(
    head: Head, fitted: FittedHead, view: LabeledView, rows: Ints, rng: np.random.Generator
) -> tuple[Ints, Floats] | None:
    """Rows (k,) of a view that `fitted` learned from, in some order, and their probabilities (k, c) by heads that did
    not see their labels; None where none can be had: a head that needs items, trained without folds.
    """
    if not head.needs_items:
        return cross_fitted(head, fitted, view, rows, rng)
    return (rows, fitted.held_out[rows]) if fitted.held_out is not None else None


def cross_fitted(
    head: Head, fitted: FittedHead, view: LabeledView, rows: Ints, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """`rows` (k,) shuffled, and their probabilities (k, c), each by a head on embeddings that was trained on all items
    but the row's fold.
    """
    rows = rng.permutation(rows)
    folds = np.full(len(view), -1)
    folds[rows] = np.arange(len(rows)) * min(_FOLDS, len(rows)) // len(rows)
    return rows, head.cross_fit(fitted, view, folds, rng)[rows]


def gained(held_out: HeldOut, ids: Ints, right: Bools) -> tuple[int, float, float, float] | None:
    """Items that a head before was measured on too (ids (m,), and whether it was right (m,)), and what the new one
    gained on them, with its 95 % interval; None where there are none.
    """
    _, now, before = np.intersect1d(held_out.ids, ids, assume_unique=True, return_indices=True)
    if not len(now):
        return None
    return len(now), *paired_difference(held_out.right[now], right[before])

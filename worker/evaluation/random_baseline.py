"""Random selection's own learning curve, from the control labels alone, as they are a random selection: heads trained
on some of them, measured on the others (or on the test split).
"""

from typing import Any

import numpy as np

from worker.arrays import Bools, Floats, Ints
from worker.evaluation.metrics import mean_average_precision, right_answers, wilson_interval
from worker.heads import Fit
from worker.heads.labeled_view import LabeledView

LEAST_LABELS = 30  # fewer leave an interval that says nothing
_FOLDS = 3
_SIZES = (0.25, 0.5, 1.0)  # parts of the control labels at hand


def random_curve(
    fit: Fit, view: LabeledView, test: tuple[Floats, Ints] | None, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Accuracy by number of random labels, from a view of the k control labels alone. fit: of a head on embeddings.
    test: embeddings (t, d) and classes (t,) of the test split, where there is one.

    [{"labels", "items", "accuracy", "accuracy_low", "accuracy_high"}]; empty below 30 control labels. Of several
    classes an item the figure is `mean_average_precision`.
    """
    k = len(view)
    if k < LEAST_LABELS:
        return []
    order = rng.permutation(k)
    parts = [np.empty(0, np.int64)] if test else np.array_split(order, _FOLDS)
    points: list[dict[str, Any]] = []
    for size in _SIZES:
        right: list[Bools] = []
        answers, truths = [], []
        for held_out in parts:
            others = np.setdiff1d(order, held_out, assume_unique=True)
            seen = others[: round(size * len(others))]
            fitted = fit(view.keep(seen), rng)
            inputs, truth = test or (view.embeddings[held_out], view.classes[held_out])
            answers.append(fitted.probabilities(inputs))
            truths.append(truth)
            right.append(right_answers(answers[-1], truth))
        if view.several:
            members = np.concatenate(truths)
            figures = mean_average_precision(np.concatenate(answers), members, np.random.default_rng(0))
            if None not in figures:
                named = zip(("", "_low", "_high"), figures, strict=True)
                found = {f"mean_average_precision{end}": value for end, value in named}
                points.append({"labels": len(seen), "items": len(members), **found})
            continue
        of_all = np.concatenate(right)
        low, high = wilson_interval(int(of_all.sum()), len(of_all))
        points.append(
            {
                "labels": len(seen),
                "items": len(of_all),
                "accuracy": float(of_all.mean()),
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return points

"""What a head is measured by, on items whose labels it had not seen, and whether it may replace another.

Random selection's own learning curve comes from the control labels alone, as they are a random selection: heads
trained on some of them, measured on the others (or on the test split).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from service.store.artifacts import Artifacts
from worker.heads import FittedHead
from worker.measuring import measure, paired_difference, rank_correlation, wilson_interval
from worker.pool_view import Bools, Floats, Ints

MeasuredOn = Literal["test", "control"]
Fit = Callable[[Floats, Ints], FittedHead]

_FOLDS = 5
_LEAST_CONTROL_LABELS = 30  # for random selection's curve; fewer leave an interval that says nothing
_CURVE_FOLDS = 3
_CURVE_SIZES = (0.25, 0.5, 1.0)  # parts of the control labels at hand

_NOTHING_MEASURED: dict[str, Any] = {
    "items": 0, "accuracy": None, "accuracy_low": None, "accuracy_high": None, "macro_f1": None, "nll": None,
    "ece": None, "recall": None, "confusion": [],
}  # fmt: skip


@dataclass(frozen=True)
class HeldOut:
    """What heads say of items (m,) with true `classes` (m,) that they were not trained on: probabilities (m, c)."""

    measured_on: MeasuredOn
    ids: Ints
    classes: Ints
    probabilities: Floats

    @cached_property
    def right(self) -> Bools:
        return np.asarray(self.probabilities.argmax(axis=1) == self.classes)

    def figures(self, pretext_losses: Floats) -> dict[str, Any]:
        """For `Head.metrics`; pretext_losses (m,)"""
        likelihoods = self.probabilities[np.arange(len(self.classes)), self.classes]
        correlation = rank_correlation(pretext_losses, -np.log(np.maximum(likelihoods, 1e-12)))
        return {
            "measured_on": self.measured_on,
            **asdict(measure(self.probabilities, self.classes)),
            "pretext_loss_correlation": asdict(correlation) if correlation else None,
        }


def nothing_measured() -> dict[str, Any]:
    return {"measured_on": None, **_NOTHING_MEASURED, "pretext_loss_correlation": None}


def cross_fitted(
    fit: Fit, rows: Ints, embeddings: Floats, classes: Ints, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """`rows` (k,) shuffled, and their probabilities (k, c), each by a head trained on all items but the row's
    fold.
    """
    rows = rng.permutation(rows)
    found = []
    for held_out in np.array_split(rows, min(_FOLDS, len(rows))):
        seen = np.ones(len(classes), np.bool_)
        seen[held_out] = False
        found.append(fit(embeddings[seen], classes[seen]).probabilities(embeddings[held_out]))
    return rows, np.concatenate(found)


def random_curve(
    fit: Fit, embeddings: Floats, classes: Ints, test: tuple[Floats, Ints] | None, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Accuracy by number of random labels, from control labels alone: embeddings (k, d), classes (k,).

    [{"labels", "items", "accuracy", "accuracy_low", "accuracy_high"}]; empty below 30 control labels
    """
    k = len(classes)
    if k < _LEAST_CONTROL_LABELS:
        return []
    order = rng.permutation(k)
    parts = [np.empty(0, np.int64)] if test else np.array_split(order, _CURVE_FOLDS)
    points = []
    for size in _CURVE_SIZES:
        right: list[Bools] = []
        for held_out in parts:
            others = np.setdiff1d(order, held_out, assume_unique=True)
            seen = others[: round(size * len(others))]
            fitted = fit(embeddings[seen], classes[seen])
            inputs, truth = test or (embeddings[held_out], classes[held_out])
            right.append(fitted.probabilities(inputs).argmax(axis=1) == truth)
        answers = np.concatenate(right)
        low, high = wilson_interval(int(answers.sum()), len(answers))
        points.append(
            {"labels": len(seen), "items": len(answers), "accuracy": float(answers.mean()),
             "accuracy_low": low, "accuracy_high": high}
        )  # fmt: skip
    return points


def store_answers(artifacts: Artifacts, head_artifact: str, held_out: HeldOut) -> None:
    """Beside the head's artifact: which items it was measured on and whether it was right."""
    with artifacts.writing(_answers_of(head_artifact)) as file:
        np.savez(file, allow_pickle=False, ids=held_out.ids, right=held_out.right)


def compare(
    artifacts: Artifacts, head_artifact: str, held_out: HeldOut
) -> tuple[int, float, float, float] | None:
    """Items that a stored head was measured on too, and what the new one gained on them with its 95 % interval;
    None where there are none.
    """
    if not artifacts.exists(_answers_of(head_artifact)):
        return None
    with np.load(artifacts.local_path(_answers_of(head_artifact)), allow_pickle=False) as arrays:
        ids, right = arrays["ids"], arrays["right"]
    _, now, before = np.intersect1d(held_out.ids, ids, assume_unique=True, return_indices=True)
    if not len(now):
        return None
    return len(now), *paired_difference(held_out.right[now], right[before])


def _answers_of(head_artifact: str) -> str:
    return f"{head_artifact.removesuffix('.npz')}-answers.npz"

"""Items that a head is measured on, whose labels it had not seen: what it says of them, and what another said."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from service.store.artifacts import Artifacts
from worker.arrays import Bools, Floats, Ints
from worker.evaluation.metrics import measure, paired_difference, rank_correlation
from worker.heads import FittedHead

MeasuredOn = Literal["test", "control"]
Fit = Callable[[Floats, Ints], FittedHead]

_FOLDS = 5

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

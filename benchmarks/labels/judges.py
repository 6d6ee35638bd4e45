"""Judges: models that are trained on a strategy's picks and tested. `own` is the head that the strategy selected with;
the foreign ones took no part in the choice, as the models that people train on their labels.

own         head `linear` on the pool's embeddings
hog         logistic regression on gradients and a thumbnail
pretrained  logistic regression on features of EfficientNet-Lite2, learned on ImageNet: selection by one embedding,
            judged on another
network     a small network from scratch on 32 pixels, with augmentation; at few budgets, since it is slow
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.labels.catalogue import make_pool
from benchmarks.labels.features import FEATURES, features
from benchmarks.labels.network import SIDE, from_scratch, steps_for, told
from benchmarks.labels.pools import Pixels
from benchmarks.labels.simulation import OWN, Row, balanced_accuracy, guess
from benchmarks.labels.split import Drawn
from worker.arrays import Bools, Floats, Halves, Ints

JUDGES = (OWN, *FEATURES, "network")
NETWORK_BUDGETS = (100, 500)
# Fixed: chosen by cross-validation on picked labels the penalty is too strong, and the picks are blamed for it.
_C = 10.0
_STEPS = 200


class Judge(Protocol):
    def right(self, labeled: Ints) -> Bools:
        """Rows of the drawn pool, none of them junk -> (t,) which test items are told right."""


def budgets_of(judge: str, budgets: Sequence[int]) -> tuple[int, ...]:
    return tuple(b for b in budgets if judge != "network" or b in NETWORK_BUDGETS)


def prepared(judge: str, pool: str) -> Path | None:
    """The file of what the judge sees, made if it is not there; None where it needs none. Raises `Missing`."""
    return features(judge, pool) if judge in FEATURES else None


def make_judge(judge: str, pool: str, file: Path | None, drawn: Drawn, seed: int) -> Judge:
    if file is None:
        return NetworkJudge(_pixels(pool), drawn, seed)
    return FeatureJudge(np.load(file, mmap_mode="r"), drawn, centred=judge == "pretrained")


def judged(judge: Judge, name: str, own: Sequence[Row], picks: Ints, drawn: Drawn) -> list[Row]:
    """The rows of a run as this judge sees them, at its budgets. picks: rows of the drawn pool, as they were picked"""
    rows = []
    for row in own:
        labeled = picks[: row.budget]
        labeled = np.sort(labeled[drawn.pool.classes[labeled] >= 0])
        accuracy, balanced = guess(drawn.pool), guess(drawn.pool)
        if len(labeled):
            right = judge.right(labeled)
            accuracy, balanced = float(right.mean()), balanced_accuracy(right, drawn.pool.test_classes)
        rows.append(replace(row, judge=name, accuracy=accuracy, balanced_accuracy=balanced))
    return rows


class FeatureJudge:
    """Logistic regression on features (n + t, f) of the pool's items and its test items, of unit length."""

    def __init__(self, features: Halves, drawn: Drawn, *, centred: bool) -> None:
        rows = np.concatenate([drawn.rows, drawn.test])
        inputs = features[rows].astype(np.float32)
        if centred:
            inputs -= inputs[: len(drawn.rows)].mean(axis=0)
        inputs /= np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1e-6)
        self._inputs, self._test = inputs[: len(drawn.rows)], inputs[len(drawn.rows) :]
        self._classes, self._test_classes = drawn.pool.classes, drawn.pool.test_classes

    def right(self, labeled: Ints) -> Bools:
        told = logistic(self._inputs[labeled], self._classes[labeled], self._test)
        return np.equal(self._test_classes, told)


def logistic(inputs: Floats, classes: Ints, test: Floats) -> Ints:
    """(m, f), (m,), (t, f) -> (t,) classes. One class in the labels is what all are told to be."""
    if len(np.unique(classes)) == 1:
        return np.full(len(test), classes[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps more change no answer
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        model = LogisticRegression(C=_C, max_iter=_STEPS).fit(inputs, classes)
    assert np.isfinite(model.coef_).all()
    # Both are finite, as scikit-learn makes sure of `test`; BLAS may say "invalid" of what it reads beside a matrix.
    with np.errstate(invalid="ignore"):
        found: Ints = model.predict(test)
    return found


class NetworkJudge:
    """pixels (n + t, 3, s, s): the pool's items, then its test items"""

    def __init__(self, pixels: Pixels, drawn: Drawn, seed: int) -> None:
        self._pixels, self._drawn, self._seed = pixels, drawn, seed

    def right(self, labeled: Ints) -> Bools:
        pool = self._drawn.pool
        net = from_scratch(
            self._pixels[self._drawn.rows[labeled]],
            pool.classes[labeled],
            pool.n_classes,
            self._seed,
            steps_for(len(labeled)),
        )
        return np.equal(pool.test_classes, told(net, self._pixels[self._drawn.test]))


@lru_cache(maxsize=1)
def _pixels(pool: str) -> Pixels:
    made = make_pool(pool, SIDE)
    return np.concatenate([made.pixels, made.test_pixels])

"""Head `linear`: multinomial logistic regression on frozen embeddings, calibrated by temperature."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.arrays import Floats, Halves, Ints
from worker.heads import FittedHead, Head
from worker.heads.calibration import (
    calibrate,
    calibrate_each,
    finite,
    scale_of,
    seen_in,
    sigmoid,
    softened,
    softmax,
    stratified_folds,
)
from worker.heads.labeled_view import ItemNetwork, LabeledView
from worker.heads.logistic import Problems, threads_for

WORTH_GOING_ON = 0.99  # a weaker penalty must lower the held-out loss at least to this part of it
_ROWS = 65_536  # embeddings turned to float32 at a time


class LinearHead(Head):
    """Multinomial logistic regression on standardised, frozen embeddings. Trains in a fraction of a second.

    The L2 penalty is weakened, 100, 30, 10, …, 0.03, for as long as the cross-validated loss falls (5
    stratified folds). Probabilities are calibrated by one temperature, fitted to the cross-validated logits
    and held near 1 while labels are few. Where an item has several classes, each is told from all else, with a
    temperature of its own; the penalty is the same for all.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """

    name = "linear"
    several = True

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        inputs = finite(view.embeddings)
        mean, scale = inputs.mean(axis=0), scale_of(inputs)
        best = _best_solution((inputs - mean) / scale, view.classes, view.n_classes, rng)
        return FittedLinearHead.on_raw(
            best.weights, best.bias, mean, scale, best.tuning, best.held_out_loss, self.name
        )

    def cross_fit(
        self, fitted: FittedHead, view: LabeledView, folds: Ints, rng: np.random.Generator
    ) -> Floats:
        tuning = tuning_of(fitted)
        inputs = finite(view.embeddings)
        inputs = (inputs - inputs.mean(axis=0)) / scale_of(inputs)
        targets, seen = softened(view.classes, view.n_classes)[:, None], without_each(folds)
        with threads_for(inputs.size * view.n_classes):
            (solution,) = Problems(inputs, targets, view.several).path(seen, [tuning.penalty])
        return tuning.probabilities(solution.logits, folds)

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        return FittedLinearHead.from_arrays(arrays, self.name)


@dataclass(frozen=True)
class Tuning:
    """The choice that held-out labels made. temperature: of each class (c,), where an item may have several; trust: the
    weight of a sure pseudo-label, where there are any.
    """

    penalty: float
    temperature: float | Floats
    trust: float = 0.0

    def probabilities(self, logits: Floats, folds: Ints) -> Floats:
        """Logits (n, f, c) by problems that see all but one fold (n,) each -> (n, c), of the one without the item."""
        divisor: Floats = np.asarray(self.temperature, np.float32)
        own: Floats = logits[np.arange(len(folds)), folds] / divisor
        return softmax(own) if isinstance(self.temperature, float) else sigmoid(own)


class FittedLinearHead:
    """weights (d, c) and bias (c,) float32, already divided by the temperature; several: each class for itself, and
    `temperature` is the mean of theirs. tuning: None in a loaded head
    """

    held_out: Floats | None = None

    def __init__(
        self,
        weights: Floats,
        bias: Floats,
        temperature: float,
        held_out_loss: float | None,
        name: str,
        several: bool,
        tuning: Tuning | None = None,
    ) -> None:
        self._weights, self._bias, self.temperature = weights, bias, temperature
        self.held_out_loss, self.name, self._several = held_out_loss, name, several
        self.tuning = tuning

    @classmethod
    def on_raw(
        cls,
        weights: Floats,
        bias: Floats,
        mean: Floats,
        scale: Floats,
        tuning: Tuning,
        held_out_loss: float,
        name: str,
    ) -> "FittedLinearHead":
        """From a solution for standardised inputs. Standardising and the temperature fold into the weights, so
        that one product is all that is left to do.
        """
        divisor = np.asarray(tuning.temperature, np.float32)
        on_raw: Floats = np.asarray(weights / scale[:, None] / divisor)
        shifted: Floats = np.asarray(bias / divisor - mean @ on_raw)
        temperature = mean_of(tuning.temperature)
        return cls(on_raw, shifted, temperature, held_out_loss, name, divisor.ndim == 1, tuning)

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[np.float32]], name: str) -> "FittedLinearHead":
        temperature, several = float(arrays["temperature"]), "several" in arrays
        return cls(arrays["weights"], arrays["bias"], temperature, None, name, several)

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        found = np.empty((len(embeddings), len(self._bias)), np.float32)
        probabilities_of = sigmoid if self._several else softmax
        for start in range(0, len(embeddings), _ROWS):
            part = slice(start, start + _ROWS)
            found[part] = probabilities_of(embeddings[part].astype(np.float32) @ self._weights + self._bias)
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return {
            "weights": self._weights,
            "bias": self._bias,
            "temperature": np.array(self.temperature, np.float32),
            **({"several": np.ones((), np.float32)} if self._several else {}),
        }


def mean_of(temperature: float | Floats) -> float:
    """The geometric mean of several."""
    return temperature if isinstance(temperature, float) else float(np.exp(np.log(temperature).mean()))


def tuning_of(fitted: FittedHead) -> Tuning:
    """The tuning of a head that `fit` has given."""
    if not isinstance(fitted, FittedLinearHead) or fitted.tuning is None:
        raise ValueError(f"head {fitted.name!r} does not know its penalty: it was loaded, or is another one")
    return fitted.tuning


def without_each(folds: Ints) -> Floats:
    """(n,), -1 for none -> (n, f): problem k sees all but fold k."""
    return np.asarray(folds[:, None] != np.arange(folds.max() + 1), np.float32)


def held_out_probabilities(view: LabeledView, rng: np.random.Generator) -> Floats:
    """(n, c) float32: each item's by a head that was trained on the other folds; of several classes, that of each for
    itself. `LinearHead` chooses its penalty by
    them, so they cost no more than one head."""
    inputs = finite(view.embeddings)
    inputs = (inputs - inputs.mean(axis=0)) / scale_of(inputs)
    best = _best_solution(inputs, view.classes, view.n_classes, rng)
    divisor: Floats = np.asarray(best.tuning.temperature, np.float32)
    logits: Floats = best.held_out_logits / divisor
    return sigmoid(logits) if view.several else softmax(logits)


class _Solution(NamedTuple):
    """At the penalty where the held-out loss is lowest: weights (d, c), bias (c,), held_out_logits (n, c)."""

    weights: Floats
    bias: Floats
    tuning: Tuning
    held_out_loss: float
    held_out_logits: Floats


def _best_solution(inputs: Floats, classes: Ints, n_classes: int, rng: np.random.Generator) -> _Solution:
    """inputs (n, d), standardised; classes (n,), or (n, c) of several an item"""
    folds = stratified_folds(classes, rng)
    lowest = np.inf
    targets = softened(classes, n_classes)[:, None]
    with threads_for(inputs.size * n_classes):
        several = classes.ndim == 2
        for found in Problems(inputs, targets, several).path(seen_in(folds)):
            held_out = found.logits[np.arange(len(classes)), folds]
            temperature, loss = (calibrate_each if several else calibrate)(held_out, classes)
            gained = loss < WORTH_GOING_ON * lowest
            if loss < lowest:
                tuning = Tuning(found.penalty, temperature)
                lowest, best = loss, _Solution(found.weights, found.bias, tuning, loss, held_out)
            if not gained:
                break
    return best

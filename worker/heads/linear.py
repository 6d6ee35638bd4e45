"""Head `linear`: multinomial logistic regression on frozen embeddings, calibrated by temperature."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.arrays import Floats, Halves, Ints
from worker.heads import FittedHead, Head
from worker.heads.calibration import (
    calibrate,
    finite,
    scale_of,
    seen_in,
    softened,
    softmax,
    stratified_folds,
)
from worker.heads.labeled_view import ItemNetwork, LabeledView
from worker.heads.logistic import path, threads_for

WORTH_GOING_ON = 0.99  # a weaker penalty must lower the held-out loss at least to this part of it
_ROWS = 65_536  # embeddings turned to float32 at a time


class LinearHead(Head):
    """Multinomial logistic regression on standardised, frozen embeddings. Trains in a fraction of a second.

    The L2 penalty is weakened, 100, 30, 10, …, 0.03, for as long as the cross-validated loss falls (5
    stratified folds). Probabilities are calibrated by one temperature, fitted to the cross-validated logits
    and held near 1 while labels are few.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """

    name = "linear"

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        inputs = finite(view.embeddings)
        mean, scale = inputs.mean(axis=0), scale_of(inputs)
        best = _best_solution((inputs - mean) / scale, view.classes, view.n_classes, rng)
        return FittedLinearHead.on_raw(
            best.weights, best.bias, mean, scale, best.temperature, best.held_out_loss, self.name
        )

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        return FittedLinearHead.from_arrays(arrays, self.name)


class FittedLinearHead:
    """weights (d, c) and bias (c,) float32, already divided by the temperature."""

    held_out: Floats | None = None

    def __init__(
        self, weights: Floats, bias: Floats, temperature: float, held_out_loss: float | None, name: str
    ) -> None:
        self._weights, self._bias, self.temperature = weights, bias, temperature
        self.held_out_loss, self.name = held_out_loss, name

    @classmethod
    def on_raw(
        cls, weights: Floats, bias: Floats, mean: Floats, scale: Floats, temperature: float,
        held_out_loss: float, name: str,
    ) -> "FittedLinearHead":  # fmt: skip
        """From a solution for standardised inputs. Standardising and the temperature fold into the weights, so
        that one product is all that is left to do.
        """
        on_raw: Floats = np.asarray(weights / scale[:, None] / np.float32(temperature))
        shifted: Floats = np.asarray(bias / np.float32(temperature) - mean @ on_raw)
        return cls(on_raw, shifted, temperature, held_out_loss, name)

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[np.float32]], name: str) -> "FittedLinearHead":
        return cls(arrays["weights"], arrays["bias"], float(arrays["temperature"]), None, name)

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        found = np.empty((len(embeddings), len(self._bias)), np.float32)
        for start in range(0, len(embeddings), _ROWS):
            part = slice(start, start + _ROWS)
            found[part] = softmax(embeddings[part].astype(np.float32) @ self._weights + self._bias)
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return {
            "weights": self._weights,
            "bias": self._bias,
            "temperature": np.array(self.temperature, np.float32),
        }


def held_out_probabilities(view: LabeledView, rng: np.random.Generator) -> Floats:
    """(n, c) float32: each item's by a head that was trained on the other folds. `LinearHead` chooses its penalty by
    them, so they cost no more than one head."""
    inputs = finite(view.embeddings)
    inputs = (inputs - inputs.mean(axis=0)) / scale_of(inputs)
    best = _best_solution(inputs, view.classes, view.n_classes, rng)
    return softmax(best.held_out_logits / np.float32(best.temperature))


class _Solution(NamedTuple):
    """At the penalty where the held-out loss is lowest: weights (d, c), bias (c,), held_out_logits (n, c)."""

    weights: Floats
    bias: Floats
    temperature: float
    held_out_loss: float
    held_out_logits: Floats


def _best_solution(inputs: Floats, classes: Ints, n_classes: int, rng: np.random.Generator) -> _Solution:
    """inputs (n, d), standardised"""
    folds = stratified_folds(classes, rng)
    lowest = np.inf
    targets = softened(classes, n_classes)[:, None]
    with threads_for(inputs.size * n_classes):
        for weights, bias, logits in path(inputs, targets, seen_in(folds)):
            held_out = logits[np.arange(len(classes)), folds]
            temperature, loss = calibrate(held_out, classes)
            gained = loss < WORTH_GOING_ON * lowest
            if loss < lowest:
                lowest, best = loss, _Solution(weights, bias, temperature, loss, held_out)
            if not gained:
                break
    return best

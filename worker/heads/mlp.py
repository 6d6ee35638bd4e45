"""Head `mlp`: one hidden layer on frozen embeddings, calibrated by temperature."""

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from worker.arrays import Floats, Halves
from worker.heads import FittedHead, Head
from worker.heads.calibration import (
    FOLDS,
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
from worker.heads.linear import mean_of
from worker.heads.logistic import threads_for

_STOPS = (25, 50, 100, 200, 400)  # steps after which the held-out loss is looked at
_BATCH = 256
_STEP_SIZE = 3e-3
_DECAY = 0.03
_DROPPED = (
    0.5  # of inputs and of hidden units, at random in every step; without it few labels are learned by heart
)
_ROWS = 65_536  # embeddings turned to float32 at a time


class MlpHead(Head):
    """One hidden layer (ReLU) on standardised, frozen embeddings: for classes that no straight line divides.

    Worth trying with many labels a class; with few, `linear` is better. AdamW (Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101) with dropout (Srivastava et al. 2014,
    https://jmlr.org/papers/v15/srivastava14a.html) in batches of up to 256, stopped after 25, 50, 100, 200 or
    400 steps, where the cross-validated loss is lowest (5 stratified folds). Calibrated as `linear` is.
    """

    name = "mlp"
    several = True

    hidden: int = Field(64, ge=1, le=1024, description="units in the hidden layer")

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        classes, n_classes = view.classes, view.n_classes
        inputs = finite(view.embeddings)
        mean, scale = inputs.mean(axis=0), scale_of(inputs)
        inputs = (inputs - mean) / scale
        folds = stratified_folds(classes, rng)
        points, targets = torch.from_numpy(inputs), torch.from_numpy(softened(classes, n_classes))
        seen = torch.from_numpy(seen_in(folds).T.copy())
        layers = _layers(inputs.shape[1], self.hidden, n_classes, rng)
        search = torch.optim.AdamW(layers, lr=_STEP_SIZE, weight_decay=_DECAY)
        dropout = torch.Generator().manual_seed(int(rng.integers(2**63)))
        lowest, done = np.inf, 0
        with threads_for(min(len(inputs), _BATCH) * inputs.shape[1] * self.hidden * FOLDS):
            for stop in _STOPS:
                for _ in range(done, stop):
                    rows = torch.from_numpy(rng.permutation(len(inputs))[:_BATCH])
                    losses = _losses(_logits(points[rows], layers, dropout), targets[rows], view.several)
                    losses = losses * seen[:, rows]
                    search.zero_grad()
                    # The problems share nothing; their sum trains each as if alone.
                    (losses.sum(dim=1) / seen[:, rows].sum(dim=1).clamp(min=1)).sum().backward()  # type: ignore[no-untyped-call]
                    search.step()
                done = stop
                with torch.no_grad():
                    logits = _logits(points, layers).numpy()
                fitted = calibrate_each if view.several else calibrate
                temperature, loss = fitted(logits[folds, np.arange(len(classes))], classes)
                if loss >= lowest:
                    break
                lowest = loss
                best = [layer[-1].detach().numpy().copy() for layer in layers], temperature
        (inner, inner_bias, outer, outer_bias), temperature = best
        inner /= scale[:, None]
        inner_bias[0] -= mean @ inner
        outer /= temperature
        outer_bias /= temperature
        arrays = {"inner": inner, "inner_bias": inner_bias[0], "outer": outer, "outer_bias": outer_bias[0]}
        if view.several:
            arrays["several"] = np.ones((), np.float32)
        return FittedMlpHead(arrays, mean_of(temperature), float(lowest))

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        layers = {name: array for name, array in arrays.items() if name != "temperature"}
        return FittedMlpHead(layers, float(arrays["temperature"]), None)


class FittedMlpHead:
    """layers: inner (d, h), inner_bias (h,), outer (h, c), outer_bias (c,), for raw embeddings and already divided
    by the temperature; `several` is among them where each class is told for itself.
    """

    name = MlpHead.name
    held_out: Floats | None = None

    def __init__(
        self, layers: dict[str, npt.NDArray[np.float32]], temperature: float, held_out_loss: float | None
    ) -> None:
        self._layers, self.temperature, self.held_out_loss = layers, temperature, held_out_loss

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        layers = self._layers
        found = np.empty((len(embeddings), len(layers["outer_bias"])), np.float32)
        probabilities_of = sigmoid if "several" in layers else softmax
        for start in range(0, len(embeddings), _ROWS):
            part = slice(start, start + _ROWS)
            hidden = embeddings[part].astype(np.float32) @ layers["inner"] + layers["inner_bias"]
            found[part] = probabilities_of(np.maximum(hidden, 0) @ layers["outer"] + layers["outer_bias"])
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return self._layers | {"temperature": np.array(self.temperature, np.float32)}


def _layers(dimensions: int, hidden: int, n_classes: int, rng: np.random.Generator) -> list[Tensor]:
    """Weights and biases of both layers for all problems at once: (f, d, h), (f, 1, h), (f, h, c), (f, 1, c).

    All problems start from the same numbers: He et al. 2015 for the inner layer, 0 for the outer one.
    """
    inner = rng.normal(0, np.sqrt(2 / dimensions), (1, dimensions, hidden)).astype(np.float32)
    layers = [
        torch.from_numpy(inner).repeat(FOLDS + 1, 1, 1),
        torch.zeros(FOLDS + 1, 1, hidden),
        torch.zeros(FOLDS + 1, hidden, n_classes),
        torch.zeros(FOLDS + 1, 1, n_classes),
    ]
    return [layer.requires_grad_() for layer in layers]


def _logits(inputs: Tensor, layers: list[Tensor], dropout: torch.Generator | None = None) -> Tensor:
    """(n, d) -> (f, n, c)"""
    inner, inner_bias, outer, outer_bias = layers
    hidden = torch.relu(_dropped(inputs, dropout) @ inner + inner_bias)
    return _dropped(hidden, dropout) @ outer + outer_bias


def _losses(logits: Tensor, targets: Tensor, several: bool) -> Tensor:
    """(f, n, c), (n, c) -> (f, n)"""
    if several:
        return (torch.nn.functional.softplus(logits) - targets * logits).sum(dim=2)
    return -(targets * torch.log_softmax(logits, dim=2)).sum(dim=2)


def _dropped(values: Tensor, dropout: torch.Generator | None) -> Tensor:
    """Some at 0 and the others larger, so that the sum stays as it was on average."""
    if dropout is None:
        return values
    return values * (torch.rand(values.shape, generator=dropout) > _DROPPED) / (1 - _DROPPED)

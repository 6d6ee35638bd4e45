"""Head `linear`: multinomial logistic regression on frozen embeddings, calibrated by temperature."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.heads import FittedHead, Head
from worker.pool_view import Floats, Halves, Ints

# Strengths λ of the penalty λ/2 |W|² beside the summed loss. Strong first: each solution starts the next
# search.
_PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
_WORTH_GOING_ON = 0.99  # a weaker penalty must lower the held-out loss at least to this part of it
_FOLDS = 5
_SMOOTHING = (
    0.01  # of the target, spread over all classes: one never seen stays possible, a single one not certain
)
_TEMPERATURES = np.geomspace(0.25, 4, 25)
_ROWS = 65_536  # embeddings turned to float32 at a time


class LinearHead(Head):
    """Multinomial logistic regression on standardised, frozen embeddings. Trains in a fraction of a second.

    The L2 penalty is weakened, 100, 30, 10, …, 0.03, for as long as the cross-validated loss falls (5
    stratified folds). Probabilities are calibrated by one temperature, fitted to the cross-validated logits
    and held near 1 while labels are few.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """

    name = "linear"

    def fit(
        self, embeddings: Halves | Floats, classes: Ints, n_classes: int, rng: np.random.Generator
    ) -> FittedHead:
        inputs = embeddings.astype(np.float32)
        if not np.isfinite(inputs).all():
            raise ValueError("the embeddings hold a value that is not finite")
        mean, scale = inputs.mean(axis=0), _scale(inputs)
        inputs = (inputs - mean) / scale
        with _threads_for(inputs.size * n_classes):
            folds = _stratified_folds(classes, rng)
            weights, bias, temperature = _best_solution(inputs, classes, n_classes, folds)
        # Standardising and the temperature fold into the weights, so that one product is all that is left
        # to do.
        weights = weights / scale[:, None]
        return FittedLinearHead(weights / temperature, (bias - mean @ weights) / temperature, temperature)

    def load(self, arrays: dict[str, npt.NDArray[np.float32]]) -> FittedHead:
        return FittedLinearHead(arrays["weights"], arrays["bias"], float(arrays["temperature"]))


class FittedLinearHead:
    """weights (d, c) and bias (c,) float32, already divided by the temperature."""

    def __init__(self, weights: Floats, bias: Floats, temperature: float) -> None:
        self._weights, self._bias, self.temperature = weights, bias, temperature

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        found = np.empty((len(embeddings), len(self._bias)), np.float32)
        for start in range(0, len(embeddings), _ROWS):
            part = slice(start, start + _ROWS)
            logits = embeddings[part].astype(np.float32) @ self._weights + self._bias
            found[part] = _softmax(logits)
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return {
            "weights": self._weights,
            "bias": self._bias,
            "temperature": np.array(self.temperature, np.float32),
        }


@contextmanager
def _threads_for(size: int) -> Iterator[None]:
    """One thread for a small fit: on busy cores its many short products would spend their time waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if size > 10_000_000 else 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scale(inputs: Floats) -> Floats:
    """(n, d) -> (d,) standard deviations, drawn to their geometric mean as if ten more items had it.

    With few labels a dimension's own spread is mostly chance, and dividing by it blows up what says little.
    """
    variance = inputs.var(axis=0)
    variance = np.maximum(variance, 1e-4 * variance.mean() + 1e-12)  # for dimensions that hardly vary at all
    own = len(inputs) / (len(inputs) + 10)
    logarithms = np.log(variance)
    return np.asarray(np.exp((own * logarithms + (1 - own) * logarithms.mean()) / 2), dtype=np.float32)


def _stratified_folds(classes: Ints, rng: np.random.Generator) -> Ints:
    """(n,) -> (n,) fold of each item; every class is spread evenly over the folds."""
    order = rng.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    folds = np.empty(len(classes), np.int64)
    folds[order] = np.arange(len(classes)) % _FOLDS
    return folds


def _best_solution(
    inputs: Floats, classes: Ints, n_classes: int, folds: Ints
) -> tuple[Floats, Floats, float]:
    """Weights (d, c), bias (c,) and temperature at the penalty with the lowest held-out loss."""
    lowest = np.inf
    for weights, bias, held_out in _path(inputs, classes, n_classes, folds):
        temperature, loss = _calibrate(held_out, classes)
        gained = loss < _WORTH_GOING_ON * lowest
        if loss < lowest:
            lowest, best = loss, (weights, bias, temperature)
        if not gained:
            break
    return best


def _path(
    inputs: Floats, classes: Ints, n_classes: int, folds: Ints
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """For each penalty in turn: weights (d, c), bias (c,) on everything, and logits (n, c) held out by fold.

    All folds are solved at once, as one problem for L-BFGS (Liu and Nocedal 1989), in coordinates in which
    the problem is nearly round: along the principal axes, each scaled by its curvature. That saves most of
    the steps.
    """
    n = len(inputs)
    points = torch.from_numpy(inputs)
    axes = _principal_axes(points)
    on_axes = torch.cat([points @ axes, torch.ones(n, 1)], dim=1)
    targets = torch.full((n, n_classes), _SMOOTHING / n_classes)
    targets[torch.arange(n), torch.from_numpy(classes)] += 1 - _SMOOTHING
    trained_on = torch.ones(n, _FOLDS + 1, 1)  # the last problem is trained on everything
    trained_on[torch.arange(n), torch.from_numpy(folds)] = 0
    coefficients = torch.zeros(on_axes.shape[1], _FOLDS + 1, n_classes)
    for penalty in _PENALTIES:
        penalties = torch.full((on_axes.shape[1], 1, 1), penalty)
        penalties[-1] = 0  # not the bias
        curvature = 0.05 * (on_axes**2).sum(dim=0)[:, None, None] + penalties  # 0.05: a usual p (1 - p)
        coefficients = _minimise(on_axes, targets, trained_on, penalties, curvature.rsqrt(), coefficients)
        logits = torch.tensordot(on_axes, coefficients, 1)[torch.arange(n), torch.from_numpy(folds)]
        everything = coefficients[:, -1]
        yield (axes @ everything[:-1]).numpy(), everything[-1].numpy(), logits.numpy()


def _principal_axes(inputs: Tensor) -> Tensor:
    """(n, d) -> (d, min(n, d)) orthonormal; whatever lies outside them has no part in the inputs."""
    if inputs.shape[0] < inputs.shape[1]:
        axes: Tensor = torch.linalg.svd(inputs, full_matrices=False)[2].T
    else:  # faster, and the axes are all that is needed
        axes = torch.linalg.eigh(inputs.T @ inputs)[1]
    return axes


def _minimise(
    inputs: Tensor, targets: Tensor, trained_on: Tensor, penalties: Tensor, scale: Tensor, start: Tensor
) -> Tensor:
    """Coefficients (k, f, c) of f problems that differ in the items they are trained on.

    inputs (n, k), targets (n, c), trained_on (n, f, 1) in {0, 1}, penalties (k, 1, 1), scale (k, 1, 1),
    start (k, f, c)
    """
    inputs, penalties, targets = inputs * scale[:, 0, 0], penalties * scale**2, targets[:, None]
    transposed = inputs.T.contiguous()
    found = (start / scale).requires_grad_()
    search = torch.optim.LBFGS(
        [found], max_iter=50, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    @torch.no_grad()
    def loss() -> Tensor:
        log_probabilities = torch.log_softmax(torch.tensordot(inputs, found, 1), dim=-1)
        misses = (log_probabilities.exp() - targets) * trained_on
        found.grad = (torch.tensordot(transposed, misses, 1) + penalties * found) / len(inputs)
        data = -(trained_on * targets * log_probabilities).sum()
        return (data + (penalties * found**2).sum() / 2) / len(inputs)

    search.step(loss)  # type: ignore[no-untyped-call]
    return found.detach() * scale


def _calibrate(logits: Floats, classes: Ints) -> tuple[float, float]:
    """The temperature with the lowest loss on held-out logits (n, c), and that loss; few labels are outweighed
    by a pull towards 1.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    truth = float(shifted[np.arange(len(classes)), classes].sum())
    losses = [
        float(np.log(np.exp(shifted / t).sum(axis=1)).sum()) - truth / t + 10 * np.log(t) ** 2
        for t in _TEMPERATURES
    ]
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best]


def _softmax(logits: Floats) -> Floats:
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))

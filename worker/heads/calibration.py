"""Calibration that all heads share: standardised inputs, stratified folds, softened targets, one temperature."""

import numpy as np

from worker.arrays import Floats, Halves, Ints
from worker.selection.spaces import of_equal_length

FOLDS = 5
_SMOOTHING = (
    0.01  # of the target, spread over all classes: one never seen stays possible, a single one not certain
)
_TEMPERATURES = np.geomspace(0.25, 4, 25)


def finite(embeddings: Halves | Floats) -> Floats:
    """As float32. Raises ValueError where a value is not finite."""
    inputs = embeddings.astype(np.float32)
    if not np.isfinite(inputs).all():
        raise ValueError("the embeddings hold a value that is not finite")
    return inputs


def scale_of(inputs: Floats) -> Floats:
    """(n, d) -> (d,) standard deviations, drawn to their geometric mean as if ten more items had it.

    With few labels a dimension's own spread is mostly chance, and dividing by it blows up what says little. Items of
    equal length have one scale: there the spread of a dimension says how much it counts, and with a scale each a
    linear head loses 2 to 12 points on 128 dimensions by pretrained weights (docs/decisions/0022).
    """
    if of_equal_length(inputs):
        return np.full(inputs.shape[1], np.sqrt(inputs.var(axis=0).mean() + 1e-12), np.float32)
    variance = inputs.var(axis=0)
    variance = np.maximum(variance, 1e-4 * variance.mean() + 1e-12)  # for dimensions that hardly vary at all
    own = len(inputs) / (len(inputs) + 10)
    logarithms = np.log(variance)
    return np.asarray(np.exp((own * logarithms + (1 - own) * logarithms.mean()) / 2), dtype=np.float32)


def stratified_folds(classes: Ints, rng: np.random.Generator, count: int = FOLDS) -> Ints:
    """(n,) -> (n,) fold of each item; every class is spread evenly over the folds. Of several classes an item, (n, c),
    every set of them is.
    """
    if classes.ndim == 2:
        classes = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1)
    order = rng.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    folds = np.empty(len(classes), np.int64)
    folds[order] = np.arange(len(classes)) % count
    return folds


def seen_in(folds: Ints, count: int = FOLDS) -> Floats:
    """(n,) -> (n, count + 1) 1 where a problem sees an item; the last problem sees everything."""
    seen = np.ones((len(folds), count + 1), np.float32)
    seen[np.arange(len(folds)), folds] = 0
    return seen


def softened(classes: Ints, n_classes: int) -> Floats:
    """(n,) -> (n, c) targets, rows sum to 1; (n, c) of several classes -> (n, c), of each for itself."""
    if classes.ndim == 2:
        return np.asarray(classes * (1 - _SMOOTHING) + _SMOOTHING / 2, dtype=np.float32)
    targets = np.full((len(classes), n_classes), _SMOOTHING / n_classes, np.float32)
    targets[np.arange(len(classes)), classes] += 1 - _SMOOTHING
    return targets


def sureness_of(soft_classes: Floats, several: bool = False) -> Floats:
    """(…, c), rows sum to 1 -> (…,) 1 - entropy / ln c: 0 for a guess, 1 for certainty. several: each class for itself,
    and the mean of them.
    """
    if several:
        return np.asarray(sureness_of(np.stack([soft_classes, 1 - soft_classes], axis=-1)).mean(axis=-1))
    logarithms = np.log(np.maximum(soft_classes, 1e-12))
    sureness = 1 + (soft_classes * logarithms).sum(axis=-1) / np.log(max(soft_classes.shape[-1], 2))
    return np.asarray(np.maximum(sureness, 0))  # a guess can come out below it, by rounding


def calibrate(logits: Floats, classes: Ints) -> tuple[float, float]:
    """The temperature with the lowest loss on held-out logits (n, c), and that loss, nats a label; few labels are
    outweighed by a pull towards 1.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    truth = float(shifted[np.arange(len(classes)), classes].sum())
    losses = [
        float(np.log(np.exp(shifted / t).sum(axis=1)).sum()) - truth / t + 10 * np.log(t) ** 2
        for t in _TEMPERATURES
    ]
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best] / max(len(classes), 1)


def calibrate_each(logits: Floats, members: Ints) -> tuple[Floats, float]:
    """As `calibrate`, of several classes an item: the temperature (c,) of each class for itself, by held-out logits
    (n, c) and members (n, c), 0 or 1; and the loss, nats an item, all classes together.
    """
    # A class has two answers, of which the other one has the logit 0.
    two = [
        calibrate(np.stack([0 * column, column], axis=1), yes)
        for column, yes in zip(logits.T, members.T, strict=True)
    ]
    return np.array([temperature for temperature, _ in two], np.float32), float(sum(loss for _, loss in two))


def sigmoid(logits: Floats) -> Floats:
    """(n, c), in place."""
    np.negative(logits, out=logits)
    np.clip(logits, -80, 80, out=logits)
    np.exp(logits, out=logits)
    logits += 1
    np.reciprocal(logits, out=logits)
    return logits


def softmax(logits: Floats) -> Floats:
    """(n, c), in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))

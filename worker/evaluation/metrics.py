"""Metrics of probabilities on items that a head never saw, and comparison of two heads on them."""

from dataclasses import dataclass
from math import atanh, sqrt, tanh

import numpy as np

from worker.arrays import Bools, Floats, Ints

_BINS = 15  # of the calibration error, as Guo et al. 2017 have it
_LEAST_PAIRS = 10  # a correlation of fewer says nothing
_Z = 1.959963984540054  # 95 %, two-sided
_DRAWS = 200  # of the bootstrap
_CONFUSED = 200  # classes at most, in a confusion matrix


@dataclass(frozen=True)
class Measures:
    """accuracy_low, accuracy_high: 95 % interval. recall: None for a class without items.
    confusion[t][p]: items of class t predicted as class p; empty for more than 200 classes, where it would be
    megabytes. reliability: {"items", "sureness", "accuracy"} of each bin of the calibration error that has items, by
    rising sureness."""

    items: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    nll: float
    ece: float
    recall: list[float | None]
    confusion: list[list[int]]
    reliability: list[dict[str, float]]


def measure(probabilities: Floats, classes: Ints) -> Measures:
    """probabilities (n, c), classes (n,) in [0, c), n >= 1."""
    n, n_classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    right, true_items, predicted_items = (
        np.bincount(found, minlength=n_classes)
        for found in (classes[predicted == classes], classes, predicted)
    )
    confusion = np.zeros((n_classes, n_classes) if n_classes <= _CONFUSED else (0, 0), np.int64)
    if confusion.size:
        np.add.at(confusion, (classes, predicted), 1)
    low, high = wilson_interval(int(right.sum()), n)
    occurring = (true_items + predicted_items) > 0
    f1 = 2 * right[occurring] / (true_items + predicted_items)[occurring]
    likelihoods = np.maximum(probabilities[np.arange(n), classes].astype(np.float64), 1e-12)
    reliability = _reliability(probabilities.max(axis=1), predicted == classes)
    return Measures(
        items=n,
        accuracy=float(right.sum() / n),
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=float(f1.mean()),
        nll=float(-np.log(likelihoods).mean()),
        ece=_calibration_error(reliability),
        recall=[float(r / t) if t else None for r, t in zip(right, true_items, strict=True)],
        confusion=confusion.tolist(),
        reliability=reliability,
    )


CELLS = ("true_positives", "false_negatives", "false_positives", "true_negatives")
# Figures that are told of each class: lists here, by name in `Head.metrics`.
BY_CLASS = frozenset({"recall", "average_precision", "confusion_by_class"})


@dataclass(frozen=True)
class MeasuresOfSeveral:
    """Figures where items may have several classes, each told for itself. …_low, …_high: 95 % intervals.

    mean_average_precision  mean over classes of the area under precision by recall, by which a class's items stand
                            before the others; of classes that some item has
    macro_f1                mean over classes of F1 at a probability of 0.5; of classes that some item has, or is
                            taken to have
    subset_accuracy         share of the items with exactly the right classes
    recall, average_precision  by class; None for a class without items
    confusion_by_class      by class, the numbers of items that have it and are taken to ("true_positives"), have it and
                            are not ("false_negatives"), have it not and are ("false_positives"), or neither
    ece, reliability        of all single decisions about an item and a class
    """

    items: int
    mean_average_precision: float | None
    mean_average_precision_low: float | None
    mean_average_precision_high: float | None
    macro_f1: float | None
    macro_f1_low: float | None
    macro_f1_high: float | None
    subset_accuracy: float
    subset_accuracy_low: float
    subset_accuracy_high: float
    nll: float
    ece: float
    recall: list[float | None]
    average_precision: list[float | None]
    confusion_by_class: list[dict[str, int]]
    reliability: list[dict[str, float]]


def measure_several(probabilities: Floats, members: Ints, rng: np.random.Generator) -> MeasuresOfSeveral:
    """probabilities (n, c), members (n, c) 0 or 1, n >= 1. Intervals of the means over classes: see `percentiles`, of
    items bootstrapped 200 times (Efron 1979, Bootstrap Methods, https://doi.org/10.1214/aos/1176344552).
    """
    n = len(members)
    predicted, truth = probabilities >= 0.5, members.astype(np.bool_)
    exact = int((predicted == truth).all(axis=1).sum())
    once = np.ones((1, n))
    precisions, f1 = average_precisions(probabilities, members, once)[0], f1_scores(predicted, truth, once)[0]
    again = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(np.float64)
    means = mean_of_known(average_precisions(probabilities, members, again))
    means_f1 = mean_of_known(f1_scores(predicted, truth, again))
    have, found, taken = truth.sum(axis=0), (predicted & truth).sum(axis=0), predicted.sum(axis=0)
    cells = (found, have - found, taken - found, n - have - taken + found)
    confusion = np.stack(cells, axis=1).tolist()
    sureness = np.maximum(probabilities, 1 - probabilities).ravel()
    reliability = _reliability(sureness, (predicted == truth).ravel())
    low, high = wilson_interval(exact, n)
    mean, mean_f1 = (_plain(mean_of_known(each[None])[0]) for each in (precisions, f1))
    return MeasuresOfSeveral(
        n,
        mean,
        *percentiles(means, mean, n),
        mean_f1,
        *percentiles(means_f1, mean_f1, n),
        exact / n,
        low,
        high,
        nll=float(losses_of(probabilities, members).mean()),
        ece=_calibration_error(reliability),
        recall=[float(f / h) if h else None for f, h in zip(found, have, strict=True)],
        average_precision=[_plain(each) for each in precisions],
        confusion_by_class=[dict(zip(CELLS, row, strict=True)) for row in confusion],
        reliability=reliability,
    )


def mean_average_precision(
    probabilities: Floats, members: Ints, rng: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    """And its 95 % interval, as `measure_several` has them."""
    n = len(members)
    again = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(np.float64)
    mean = _plain(mean_of_known(average_precisions(probabilities, members, np.ones((1, n))))[0])
    return mean, *percentiles(mean_of_known(average_precisions(probabilities, members, again)), mean, n)


def average_precisions(probabilities: Floats, members: Ints, weights: np.ndarray) -> np.ndarray:
    """(b, c) The average precision of each class, with items weighted (b, n) in b ways: the mean over the items that
    have it of the precision among those that are at least as likely. NaN without such items.
    """
    found = np.full((len(weights), members.shape[1]), np.nan)
    for column in np.flatnonzero(members.any(axis=0)):
        order = np.argsort(-probabilities[:, column], kind="stable")
        scores, yes = -probabilities[order, column], members[order, column].astype(np.bool_)
        last = np.searchsorted(scores, scores[yes], side="right") - 1  # equal ones come together
        mine = weights[:, order]
        above, theirs = mine.cumsum(axis=1)[:, last], (mine * yes).cumsum(axis=1)[:, last]
        precision = theirs / np.maximum(above, 1e-12)
        total = mine[:, yes].sum(axis=1)
        found[:, column] = np.where(
            total > 0, (mine[:, yes] * precision).sum(axis=1) / np.maximum(total, 1e-12), np.nan
        )
    return found


def f1_scores(predicted: Bools, truth: Bools, weights: np.ndarray) -> np.ndarray:
    """(b, c) F1 by predicted (n, c) and true (n, c) classes; NaN where neither has any."""
    both = weights @ (predicted & truth)
    either = weights @ predicted + weights @ truth
    return np.where(either > 0, 2 * both / np.maximum(either, 1e-12), np.nan)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """(b, c) -> (b,) without NaN; NaN where nothing else is there."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def percentiles(values: np.ndarray, found: float | None, n: int) -> tuple[float | None, float | None]:
    """The 95 % interval by bootstrapped values (b,), never narrower than that of a share of n items: what is perfect on
    few items is perfect however often they are drawn again.
    """
    values = values[~np.isnan(values)]
    if found is None or not len(values):
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    lowest, highest = wilson_interval(found * n, n)
    return min(lowest, float(low)), max(highest, float(high))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def losses_of(probabilities: Floats, classes: Ints) -> np.ndarray:
    """(n,) negative log-likelihoods, in nats, of classes (n,); of several (n, c), all of them together."""
    found = probabilities.astype(np.float64)
    if classes.ndim == 2:
        return np.asarray(-np.log(np.maximum(np.where(classes == 1, found, 1 - found), 1e-12)).sum(axis=1))
    return np.asarray(-np.log(np.maximum(found[np.arange(len(classes)), classes], 1e-12)))


def right_answers(probabilities: Floats, classes: Ints) -> Bools:
    """(n,) True where the likeliest class is that of classes (n,); of several (n, c), where just those are likely."""
    if classes.ndim == 2:
        return np.asarray(((probabilities >= 0.5) == (classes == 1)).all(axis=1))
    return np.asarray(probabilities.argmax(axis=1) == classes)


def told_apart(classes: Ints) -> bool:
    """True if items of classes (n,), or (n, c) of several, can teach anything: some are what others are not."""
    if classes.ndim == 2:
        return bool(((classes == 1).any(axis=0) & (classes == 0).any(axis=0)).any())
    return len(np.unique(classes)) >= 2


def wilson_interval(right: float, n: int) -> tuple[float, float]:
    """95 % interval of a share, sound for small n and near 0 and 1.

    Wilson 1927, Probable Inference, https://doi.org/10.1080/01621459.1927.10502953
    """
    share, z2 = right / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Rounding must not leave the share itself outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def paired_difference(
    right: Bools | Floats, right_before: Bools | Floats, other_variance: float = 0.0, unseen: float = 1.0
) -> tuple[float, float, float]:
    """Difference of two accuracies on the same n >= 1 items, and its 95 % interval. other_variance: what else the
    difference varies by than by which items these are.

    Each of the four ways in which the two can be right or wrong counts half an item more: Agresti and Min 2005,
    Simple improved confidence intervals for comparing matched proportions, https://doi.org/10.1002/sim.1781

    Where an item's share of the accuracy is another one than 0 or 1, it is the same interval of the mean of paired
    differences; unseen: the square of a difference that an item not seen could make, half of it up and half down.
    """
    n, differences = len(right), right.astype(np.float64) - right_before
    total, n_adjusted = float(differences.sum()), n + 2
    middle = total / n_adjusted
    variance = max(0.0, float((differences**2).sum()) + unseen - total**2 / n_adjusted) / n_adjusted**2
    half = _Z * sqrt(variance + other_variance)
    return total / n, middle - half, middle + half


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of `items` pairs; low, high: 95 % interval."""

    rho: float
    low: float
    high: float
    items: int


def rank_correlation(left: Floats, right: Floats) -> Correlation | None:
    """Spearman's correlation of two arrays (n,); None for fewer than 10 items, or where all values of one are equal.

    Interval: Fisher's z with the standard error of Bonett and Wright 2000, Sample Size Requirements for
    Estimating Pearson, Kendall and Spearman Correlations, https://doi.org/10.1007/BF02294183
    """
    n = len(left)
    if n < _LEAST_PAIRS or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    rho = float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])
    z = atanh(float(np.clip(rho, -0.999999, 0.999999)))
    half = _Z * sqrt((1 + rho * rho / 2) / (n - 3))
    return Correlation(rho=rho, low=tanh(z - half), high=tanh(z + half), items=n)


def _ranks(values: Floats) -> np.ndarray:
    """Equal values share the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where])


def _reliability(sureness: Floats, right: Bools) -> list[dict[str, float]]:
    """By equal-width bins of sureness (n,); right (n,)."""
    bins = np.minimum((sureness * _BINS).astype(np.int64), _BINS - 1)
    items, sure, rights = (
        np.bincount(bins, weights=weights, minlength=_BINS)
        for weights in (None, sureness.astype(np.float64), right)
    )
    return [
        {
            "items": int(items[each]),
            "sureness": float(sure[each] / items[each]),
            "accuracy": float(rights[each] / items[each]),
        }
        for each in np.flatnonzero(items)
    ]


def _calibration_error(reliability: list[dict[str, float]]) -> float:
    """Expected calibration error: |accuracy - sureness| by equal-width bins, weighted by their items.

    Naeini et al. 2015, Obtaining Well Calibrated Probabilities Using Bayesian Binning,
    https://ojs.aaai.org/index.php/AAAI/article/view/9602
    """
    items = sum(each["items"] for each in reliability)
    return float(
        sum(each["items"] * abs(each["accuracy"] - each["sureness"]) for each in reliability) / items
    )

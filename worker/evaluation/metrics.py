"""Metrics of probabilities on items that a head never saw, and comparison of two heads on them."""

from dataclasses import dataclass
from math import atanh, sqrt, tanh

import numpy as np

from worker.arrays import Bools, Floats, Ints

_BINS = 15  # of the calibration error, as Guo et al. 2017 have it
_LEAST_PAIRS = 10  # a correlation of fewer says nothing
_Z = 1.959963984540054  # 95 %, two-sided
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


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, sound for small n and near 0 and 1.

    Wilson 1927, Probable Inference, https://doi.org/10.1080/01621459.1927.10502953
    """
    share, z2 = right / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Rounding must not leave the share itself outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def paired_difference(
    right: Bools, right_before: Bools, other_variance: float = 0.0
) -> tuple[float, float, float]:
    """Difference of two accuracies on the same n >= 1 items, and its 95 % interval. other_variance: what else the
    difference varies by than by which items these are.

    Each of the four ways in which the two can be right or wrong counts half an item more: Agresti and Min 2005,
    Simple improved confidence intervals for comparing matched proportions, https://doi.org/10.1002/sim.1781
    """
    n = len(right)
    gained, lost = int((right & ~right_before).sum()), int((right_before & ~right).sum())
    b, c, n_adjusted = gained + 0.5, lost + 0.5, n + 2
    middle = (b - c) / n_adjusted
    variance = max(0.0, b + c - (b - c) ** 2 / n_adjusted) / n_adjusted**2
    half = _Z * sqrt(variance + other_variance)
    return (gained - lost) / n, middle - half, middle + half


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

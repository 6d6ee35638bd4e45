"""The expected gain of more labels, and the accuracy of as many random ones: learning curves, extrapolated.

Accuracy after n labels is taken to be a - b·n^(-c), the saturating power law that most learning curves follow
(Viering and Loog 2022, The Shape of Learning Curves, https://arxiv.org/abs/2103.10948). With the few and
uncertain points there are, many such curves fit; an answer is the mean over 30,000 of them, each weighted
by how well it fits the points within their intervals, and a 95 % interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST_POINTS = 4
_ROUNDS_AHEAD = 4
_MOST_POINTS = 30  # the newest; what was long ago says little about what comes
_WORTH_IT = 0.005  # half a point: less than that is hardly worth a round
_MISFIT, _WIDER = 0.002, 1.25
_Z = 1.959963984540054
_CURVES = 30_000
# Spread evenly over a cube, without the rows of a grid, which narrow posteriors fall between: Roberts 2018,
# https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/
_CUBE = (0.5 + np.arange(_CURVES)[:, None] * 1.2207440846057596 ** -np.arange(1.0, 4)) % 1
_LEVELS = 8 * _CUBE[:, 0] - 4  # of a curve at the newest point, in standard errors from what was measured
_ROOMS = _CUBE[:, 1]  # part of the way from there to 100 % that can still be gained
_SPEEDS = 0.05 * 30 ** _CUBE[:, 2]  # c, from 0.05 to 1.5; slow curves count as much as quick ones

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """low, high: 95 % interval"""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Advice:
    """`text` says it all; `gain` in accuracy by `labels` more, None while it is too early to tell."""

    text: str
    labels: int
    gain: Estimate | None


@dataclass(frozen=True)
class RandomSelection:
    """`text` says it all; `accuracy` of random selection after `labels`, None where control labels are too few."""

    text: str
    labels: int | None
    accuracy: Estimate | None


class Curves:
    """Power laws through points of a learning curve, weighted by their fit.

    labels (p,) rising, accuracies (p,), errors (p,) > 0: standard errors, as if independent. Where all points are
    measured on the same items they err together, so a gain is known better than its interval says. Errors are
    widened: by how far learning curves are from any power law, and by a quarter, without which slow curves are
    taken for quick ones that end soon and less than nine of ten intervals held the truth.
    """

    def __init__(self, labels: Array, accuracies: Array, errors: Array) -> None:
        self._last = labels[-1]
        errors = _WIDER * np.hypot(errors, _MISFIT)
        self._level = np.clip(accuracies[-1] + _LEVELS * errors[-1], 0, 1)
        self._room = _ROOMS * (1 - self._level)
        misses = [(self.at(n) - y) / error for n, y, error in zip(labels, accuracies, errors, strict=True)]
        fits = -0.5 * sum(np.square(miss) for miss in misses)
        self._weights = np.exp(fits - np.max(fits))

    def at(self, labels: float) -> Array:
        """The accuracy that each curve has there."""
        return np.asarray(self._level + self._room * (1 - (self._last / labels) ** _SPEEDS))

    def accuracy(self, labels: float) -> Estimate:
        return self._estimate(np.clip(self.at(labels), 0, 1))

    def gain(self, more: float) -> Estimate:
        """From the newest point to `more` labels."""
        return self._estimate(self.at(self._last + more) - self._level)

    def limit(self) -> Estimate:
        """With labels without end."""
        return self._estimate(self._level + self._room)

    def _estimate(self, values: Array) -> Estimate:
        order = np.argsort(values)
        shares = np.cumsum(self._weights[order]) / self._weights.sum()
        low, high = values[order][np.searchsorted(shares, [0.025, 0.975])]
        return Estimate(float(np.average(values, weights=self._weights)), float(low), float(high))


def on_stopping(
    learning_curve: Sequence[dict[str, Any]], round_size: int, figure: str = "accuracy"
) -> Advice:
    """learning_curve: of the figure, as `rounds.learning_curve` has it; only the rounds measured as the newest one was
    count.
    """
    more = _ROUNDS_AHEAD * round_size
    newest = [point for point in learning_curve if point["measured_on"] == learning_curve[-1]["measured_on"]]
    if len(newest) < _LEAST_POINTS:
        return Advice(
            f"Too early to tell what more labels will bring: that takes {_LEAST_POINTS} measured rounds, there are "
            f"{len(newest)}.",
            more,
            None,
        )
    gain = _curves(newest[-_MOST_POINTS:], "labels_used", figure).gain(more)
    half = (gain.high - gain.low) / 2
    points = f"{100 * gain.mean:.1f} ± {100 * half:.1f} points of {_called(figure)}"
    text = f"Another {more} labels are expected to add {points}."
    if gain.high < _WORTH_IT:
        text += " You can stop here."
    elif gain.low > _WORTH_IT:
        text += " Labeling more pays off."
    return Advice(text, more, gain)


def on_random_selection(
    random_curve: Sequence[dict[str, Any]], labels_used: int, reached: float, figure: str = "accuracy"
) -> RandomSelection:
    """random_curve: of the newest measured head, see `measure_head`; `reached`: its own figure, as accuracy."""
    if not random_curve:
        text = "Not enough control labels to tell what random selection would have reached; it takes 30."
        return RandomSelection(text, None, None)
    control_labels = random_curve[-1]["labels"]
    # All points are measured on the same items and err together: their number makes none of them surer.
    curves = _curves(random_curve, "labels", figure, wider=np.sqrt(len(random_curve)))
    accuracy = curves.accuracy(max(labels_used, control_labels))
    of_figure = "" if figure == "accuracy" else f"a {_called(figure)} of "
    text = (
        f"Random selection is expected to reach {of_figure}{100 * accuracy.mean:.0f} % with {labels_used} labels "
        f"({100 * accuracy.low:.0f} to {100 * accuracy.high:.0f} %, carried on from {control_labels} control "
        f"labels); yours reached {100 * reached:.0f} %."
    )
    return RandomSelection(text, labels_used, accuracy)


def _called(figure: str) -> str:
    return figure.replace("_", " ")


def _curves(points: Sequence[dict[str, Any]], labels_in: str, figure: str, wider: float = 1.0) -> Curves:
    labels, accuracies, lows, highs = (
        np.array([point[name] for point in points], np.float64)
        for name in (labels_in, figure, f"{figure}_low", f"{figure}_high")
    )
    return Curves(labels, accuracies, wider * np.maximum(highs - lows, 1e-4) / (2 * _Z))

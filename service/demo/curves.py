"""Learning curves: accuracy against labels used, over seeds, and how many labels a strategy saves."""

import math
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Point:
    """One round of one project: accuracy in 0..1 with its 95 % interval."""

    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class MeanPoint:
    """The same round over seeds. `deviation` is the sample standard deviation, 0 with one seed."""

    labels: int
    accuracy: float
    deviation: float
    low: float  # means of the seeds' 95 % intervals
    high: float


def mean_curve(curves: list[list[Point]]) -> list[MeanPoint]:
    """Average over seeds, round by round; all curves have the same rounds."""
    means = []
    for points in zip(*curves, strict=True):
        accuracies = [point.accuracy for point in points]
        means.append(
            MeanPoint(
                points[0].labels,
                fmean(accuracies),
                stdev(accuracies) if len(accuracies) > 1 else 0.0,
                fmean(point.low for point in points),
                fmean(point.high for point in points),
            )
        )
    return means


@dataclass(frozen=True)
class Efficiency:
    """Labels random selection needs ÷ labels the strategy needs, at equal accuracy.

    `bound` says when the curve of random was too short to know: ">" the true value is larger, "<" smaller."""

    value: float
    bound: str

    def __str__(self) -> str:
        return f"{self.bound}{self.value:.1f}"


def label_efficiency(point: MeanPoint, random: list[MeanPoint]) -> Efficiency:
    """Interpolated in ln(labels) on the running best of random's curve, so that noise never makes it fall."""
    best = 0.0
    previous: tuple[int, float] | None = None
    for other in random:
        best = max(best, other.accuracy)
        if best >= point.accuracy:
            if previous is None:
                bound = "" if best == point.accuracy else "<"
                return Efficiency(other.labels / point.labels, bound)
            labels, accuracy = previous
            share = (point.accuracy - accuracy) / (best - accuracy)
            needed = math.exp(math.log(labels) + share * (math.log(other.labels) - math.log(labels)))
            return Efficiency(needed / point.labels, "")
        previous = (other.labels, best)
    return Efficiency(random[-1].labels / point.labels, ">")

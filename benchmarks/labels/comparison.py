"""From rows to what is reported of a strategy on a pool: means over seeds, and differences to random."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

from benchmarks.labels.simulation import Row
from service.demo.curves import Efficiency, MeanPoint, label_efficiency

Run = Sequence[Row]


@dataclass(frozen=True)
class Mean:
    """With its 95 % interval (Student's t over seeds); no interval for one seed."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Mean":
        mean = fmean(values)
        if len(values) < 2:
            return Mean(mean, math.nan, math.nan)
        half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
        return Mean(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Arm:
    """One strategy on one pool. By budget, except where it says otherwise; accuracies in 0..1.

    aulc            area under accuracy over ln(labels), divided by the width: a mean accuracy
    minus_random    paired by seed
    balanced        whether accuracy is the mean over classes
    efficiency      empty where random was not measured between the budgets
    """

    strategy: str
    seeds: int
    balanced: bool
    accuracy: dict[int, Mean]
    efficiency: dict[int, Efficiency]
    minus_random: dict[int, Mean]
    aulc: Mean
    aulc_minus_random: Mean
    junk: dict[int, float]
    duplicates: dict[int, float]
    selection_s: float  # all rounds of a run together
    selection_cpu_s: float


# By pool, then by judge; of each the best area under the curve first.
Compared = dict[str, dict[str, list[Arm]]]


def compare(runs: dict[str, list[Run]], budgets: Sequence[int], balanced: bool) -> list[Arm]:
    """Arms of one pool: `runs` by strategy, each in the order of the seeds; `random` must be among them, with the same
    seeds and all of the budgets, and may have more. The best area under the curve comes first.
    """
    curves = {name: [_curve(run, balanced) for run in some] for name, some in runs.items()}
    random_curves = curves["random"]
    random_means = [
        MeanPoint(budget, fmean(curve[budget] for curve in random_curves), 0.0, 0.0, 0.0)
        for budget in sorted(random_curves[0])
    ]
    dense = len(random_means) > len(budgets)
    arms = []
    for name, mine in curves.items():
        accuracy = {budget: Mean.of([curve[budget] for curve in mine]) for budget in budgets}
        points = {b: MeanPoint(b, accuracy[b].value, 0.0, 0.0, 0.0) for b in budgets}
        areas = [area(curve, budgets) for curve in mine]
        pairs = list(zip(mine, random_curves, strict=True))
        rows = [{row.budget: row for row in run} for run in runs[name]]
        arms.append(
            Arm(
                strategy=name,
                seeds=len(mine),
                balanced=balanced,
                accuracy=accuracy,
                efficiency={b: label_efficiency(points[b], random_means) for b in budgets if dense},
                minus_random={b: Mean.of([own[b] - other[b] for own, other in pairs]) for b in budgets},
                aulc=Mean.of(areas),
                aulc_minus_random=Mean.of(
                    [a - area(other, budgets) for a, (_, other) in zip(areas, pairs, strict=True)]
                ),
                junk={b: fmean(run[b].junk for run in rows) for b in budgets},
                duplicates={b: fmean(run[b].duplicates for run in rows) for b in budgets},
                selection_s=fmean(sum(row.selection_s for row in run) for run in runs[name]),
                selection_cpu_s=fmean(sum(row.selection_cpu_s for row in run) for run in runs[name]),
            )
        )
    return sorted(arms, key=lambda arm: -arm.aulc.value)


def area(curve: dict[int, float], budgets: Sequence[int]) -> float:
    """Mean of the curve over ln(labels) between the first and the last budget, by trapezoids."""
    places = np.log(budgets)
    heights = np.array([curve[budget] for budget in budgets])
    return float(np.trapezoid(heights, places) / (places[-1] - places[0])) if len(budgets) > 1 else heights[0]


def _curve(run: Run, balanced: bool) -> dict[int, float]:
    return {row.budget: row.balanced_accuracy if balanced else row.accuracy for row in run}

"""From accuracies to labels: how many an arm needs to reach a goal, and how many times fewer than another arm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.labels.comparison import Mean
from benchmarks.system.arms import Row

GOAL = 0.75
Curve = dict[int, float]  # accuracy by labels, rising


@dataclass(frozen=True)
class Needed:
    """labels; `bound` is "<" where the curve begins above the goal, ">" where it ends below."""

    labels: float
    bound: str = ""


def curves(rows: Sequence[Row]) -> dict[str, dict[int, Curve]]:
    """By arm and seed."""
    found: dict[str, dict[int, Curve]] = {}
    for row in sorted(rows, key=lambda row: row.labels):
        found.setdefault(row.arm, {}).setdefault(row.seed, {})[row.labels] = row.accuracy
    return found


def labels_needed(curve: Curve, goal: float = GOAL) -> Needed:
    """The labels at which the curve first reaches the goal, interpolated over ln(labels)."""
    before: tuple[int, float] | None = None
    for labels, accuracy in curve.items():
        if accuracy >= goal:
            if before is None:
                return Needed(labels, "" if accuracy == goal else "<")
            share = (goal - before[1]) / (accuracy - before[1])
            return Needed(math.exp(math.log(before[0]) + share * math.log(labels / before[0])))
        before = labels, accuracy
    return Needed(max(curve), ">")


def factor(many: dict[int, Curve], few: dict[int, Curve], goal: float = GOAL) -> tuple[Mean, str]:
    """The factor by which `few` needs fewer labels, paired by seed: geometric mean with its 95 % interval (Student's t
    on the logarithms). The bound is ">" or "<" where a curve was too short in some seed, "?" where both happened.
    """
    logarithms, bounds = [], set()
    for seed in many.keys() & few.keys():
        today, ours = labels_needed(many[seed], goal), labels_needed(few[seed], goal)
        logarithms.append(math.log(today.labels / ours.labels))
        bounds |= {today.bound, {"<": ">", ">": "<", "": ""}[ours.bound]}
    mean = Mean.of(logarithms)
    bounds -= {""}
    bound = "?" if len(bounds) > 1 else "".join(bounds)
    return Mean(math.exp(mean.value), math.exp(mean.low), math.exp(mean.high)), bound


def mean_needed(some: dict[int, Curve], goal: float = GOAL) -> Needed:
    """Geometric mean over seeds."""
    found = [labels_needed(curve, goal) for curve in some.values()]
    bounds = {one.bound for one in found} - {""}
    mean = math.exp(fmean(math.log(one.labels) for one in found))
    return Needed(mean, "?" if len(bounds) > 1 else "".join(bounds))


def mean_accuracies(some: dict[int, Curve]) -> dict[int, Mean]:
    """By labels."""
    first = next(iter(some.values()))
    return {labels: Mean.of([curve[labels] for curve in some.values()]) for labels in first}

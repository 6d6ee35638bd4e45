"""Over all pools and judges: is a strategy above random, and where is it surely below?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from benchmarks.labels.catalogue import KINDS, Role
from benchmarks.labels.comparison import Arm, Compared, Mean


@dataclass(frozen=True)
class Summary:
    """One strategy over `pairs` of pool and judge. Areas above random, in 0..1.

    mean        over all pairs
    by_judge    over the pools
    below       pairs whose interval lies below 0 as a whole: `pool, judge`
    """

    strategy: str
    pairs: int
    mean: float
    by_judge: dict[str, float]
    below: tuple[str, ...]


def summarise(compared: Compared, role: Role | None = None) -> list[Summary]:
    """The best mean first; of the pools of one role, or of all."""
    found: dict[str, dict[tuple[str, str], Mean]] = {}
    for pool, judge, arm in arms(compared):
        if arm.strategy != "random" and (role is None or role_of(pool) == role):
            found.setdefault(arm.strategy, {})[pool, judge] = arm.aulc_minus_random
    return sorted((_summary(*one) for one in found.items()), key=lambda one: -one.mean)


def arms(compared: Compared) -> Iterator[tuple[str, str, Arm]]:
    """Pool, judge, arm."""
    for pool, by_judge in compared.items():
        for judge, some in by_judge.items():
            for arm in some:
                yield pool, judge, arm


def role_of(pool: str) -> Role:
    return KINDS[pool].role if pool in KINDS else "development"


def _summary(strategy: str, gains: dict[tuple[str, str], Mean]) -> Summary:
    judges = dict.fromkeys(judge for _, judge in gains)
    return Summary(
        strategy=strategy,
        pairs=len(gains),
        mean=fmean(gain.value for gain in gains.values()),
        by_judge={one: fmean(gain.value for (_, by), gain in gains.items() if by == one) for one in judges},
        below=tuple(
            f"{pool}, {judge}"
            for (pool, judge), gain in gains.items()
            if not math.isnan(gain.high) and gain.high < 0
        ),
    )

"""Strategy `probcover`."""

import numpy as np
from pydantic import Field

from worker.arrays import Bools, Floats, Ints
from worker.selection.herding import StandardisedSpace
from worker.selection.index import k_means, nearest
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import in_order
from worker.strategies import Strategy

_SAMPLE = 20_000
_PURITY_OF = 2_000  # items whose balls are looked at to choose the radius
_RADII = np.linspace(0.05, 1.95, 77)  # between directions, whose largest distance is 2
_ROWS = 1_024


class ProbCover(Strategy):
    """The items with the most uncovered items around them, within one radius for all: greedy ball covering.

    The radius is the largest for which `purity` of the balls hold items of one k-means cluster only, with as
    many clusters as classes. What lies in the ball of a label is covered already. Good while labels are few;
    once all balls are full the order is random. Needs no head. Score: the share of the pool an item newly
    covers.

    Yehuda et al. 2022, Active Learning Through a Covering Lens, https://arxiv.org/abs/2205.11320

    On pools of more than 20,000 items, 20,000 random ones are covered, by candidates among themselves.
    """

    name = "probcover"

    purity: float = Field(0.95, gt=0, lt=1, description="share of balls that must lie within one cluster")

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        space = StandardisedSpace.drawn(pool, rng)
        sample = rng.permutation(len(pool))[:_SAMPLE]
        points = space.of(sample)
        radius = pure_radius(points, k_means(points, pool.n_classes, rng), self.purity)
        covered = np.zeros(len(sample), np.bool_)
        labeled = np.flatnonzero(pool.labeled)
        if len(labeled):
            covered = nearest(points, space.of(labeled), 1)[0][:, 0] <= radius**2
        among = pool.available[sample]
        picks, gains = cover(within(points[among], points, radius), covered, n)
        picked = sample[among][picks]
        rest = rng.permutation(np.setdiff1d(pool.candidates, picked))[: n - len(picked)]
        scores = np.concatenate([gains / len(sample), np.zeros(len(rest), np.float32)])
        return in_order(np.concatenate([picked, rest]), scores)


def pure_radius(points: Floats, cluster: Ints, purity: float) -> float:
    """The largest of `_RADII` for which `purity` of the balls round `points` (m, d) hold one cluster (m,) only,
    or the smallest: the quantile of the distances to the nearest item of another cluster.
    """
    centers = slice(0, _PURITY_OF)
    cosines = points[centers] @ points.T
    cosines[cluster[centers, None] == cluster] = -np.inf
    to_others = np.sqrt(np.maximum(2 - 2 * cosines.max(axis=1), 0))  # infinite where all are one cluster
    allowed = [radius for radius in _RADII if (to_others > radius).mean() >= purity]
    return float(max(allowed, default=_RADII[0]))


def within(candidates: Floats, points: Floats, radius: float) -> Bools:
    """(c, d), (m, d), all of length 1 -> (m, c): whether a point lies in a candidate's ball."""
    found = np.empty((len(points), len(candidates)), np.bool_)
    for start in range(0, len(points), _ROWS):
        block = slice(start, start + _ROWS)
        found[block] = points[block] @ candidates.T >= 1 - radius**2 / 2
    return found


def cover(balls: Bools, covered: Bools, n: int) -> tuple[Ints, Floats]:
    """Up to n columns of `balls` (m, c), each the one with the most points that are not covered (m,) by those
    before, and that number; ends when there is nothing left to gain. Every point is looked at once, when it
    gets covered.
    """
    covered = covered.copy()
    gains = balls[~covered].sum(axis=0, dtype=np.int32)
    picks: list[int] = []
    found: list[int] = []
    while len(picks) < n and gains.max(initial=0) > 0:
        best = int(gains.argmax())
        picks.append(best)
        found.append(int(gains[best]))
        newly = np.flatnonzero(balls[:, best] & ~covered)
        gains -= balls[newly].sum(axis=0, dtype=np.int32)
        covered[newly] = True
    return np.array(picks, np.int64), np.array(found, np.float32)

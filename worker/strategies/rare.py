"""Strategy `rare`."""

import numpy as np
from pydantic import Field

from worker.arrays import Floats, Ints
from worker.errors import JobFailed
from worker.selection.herding import MORE_REFERENCES, herd
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import by_rank, by_score
from worker.selection.spaces import PoolSpace
from worker.strategies import Strategy

_WIDTH = np.float32(0.2)  # of the kernel, in units of the cosine
_NEIGHBOURHOOD = (
    20_000  # candidates nearest to the examples, which are weighed; the others follow as they are near
)
_EXAMPLES = 500  # labeled items of the class that are compared with, and eight times as many of the others
_ROWS = 16_384
_NOTHING = 1e-6  # of kernel mass: far from all labels nothing speaks for the class


class Rare(Strategy):
    """More items of one rare class, from a few examples on: the likeliest first. For finding them, not for accuracy.

    An item is the likelier of the class, the larger the share of its examples among the labeled items around
    it (kernel exp((cosine - 1) / 0.2) in the whitened space). Each new label is an example, for the class or against
    it. It needs no head, and asks none (its probability as a factor gained nothing), but examples: label some that you
    know of, or that `GET …/items/<id>/similar` finds. Before the first, and in turns while the class is left open and
    others have no label at all, it picks what no label covers, as `maxherding`. Score: the estimated chance, not
    calibrated; in turns the rank.

    Labels until 20 of 14,000 Fashion-MNIST items of a rare class were found, from 3 examples and 20 random labels on,
    in rounds of 20, 5 seeds: 43 to 63 where the class is easy to tell (100 ankle boots), 123 to 143 where it is hard
    (60 shirts; the width of the kernel was chosen on these) and 123 to 203 for 60 coats, on which nothing was chosen.
    For the ankle boots `margin` had found 8 to 14 after 403 labels, and chance finds 6. `python -m benchmarks.rare`
    measures it.

    Garnett et al. 2012, Bayesian Optimal Active Search and Surveying, https://arxiv.org/abs/1206.6406 (the greedy
    policy); the candidates near the examples: Coleman et al. 2022, Similarity Search for Efficient Active Learning and
    Search of Rare Concepts, https://arxiv.org/abs/2007.00077. Of the same family are SIMILAR, Kothawade et al. 2021,
    https://arxiv.org/abs/2107.00717, and GALAXY, Zhang et al. 2022, https://arxiv.org/abs/2202.01402, which balance
    classes for accuracy; `shortlist` does that here.
    """

    name = "rare"

    class_name: str | None = Field(
        None,
        alias="class",
        description="to find items of; null = the class with the fewest labels, of those that have any",
        json_schema_extra={"x-class": True},  # the service refuses what is no class of the project
    )

    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        counts = pool.labels_of_class
        wanted = self._wanted(pool, counts)
        if wanted is None or counts[wanted] == 0:
            return _uncovered(pool, n, rng)
        found = _likeliest(pool, wanted, n, rng)
        if self.class_name is not None or counts.min() > 0:
            return found
        return _in_turns(found, _uncovered(pool, n, rng), n)

    def _wanted(self, pool: PoolView, counts: Ints) -> int | None:
        """The index of the class that is sought; None where it is left open and nothing is labeled."""
        if self.class_name is None:
            seen = np.flatnonzero(counts)
            return int(seen[counts[seen].argmin()]) if len(seen) else None
        if self.class_name not in pool.class_names:
            known = ", ".join(pool.class_names) or "not known"
            raise JobFailed(
                f"The strategy 'rare' is to find items of the class {self.class_name!r}, which the project does not "
                f"have. Its classes are: {known}. Change `strategy.params.class` in the project's settings."
            )
        return pool.class_names.index(self.class_name)


def _uncovered(pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
    return herd(pool, n, None, rng, references=MORE_REFERENCES, space_of=PoolSpace)


def _likeliest(pool: PoolView, wanted: int, n: int, rng: np.random.Generator) -> Selection:
    references = rng.choice(len(pool), min(MORE_REFERENCES, len(pool)), replace=False)
    space = PoolSpace(pool, references)
    theirs = pool.of_class(wanted)
    examples = _some(np.flatnonzero(theirs), _EXAMPLES, rng)
    others = _some(np.flatnonzero(pool.labeled & ~theirs), 8 * _EXAMPLES, rng)
    candidates, nearness = pool.candidates, np.empty(int(pool.available.sum()), np.float32)
    to_examples = space.of(examples).T
    for start in range(0, len(candidates), _ROWS):
        rows = candidates[start : start + _ROWS]
        nearness[start : start + _ROWS] = (space.of(rows) @ to_examples).max(axis=1)
    near = by_score(candidates, nearness, max(n, _NEIGHBOURHOOD), rng).items
    return by_score(near, _chances(space, near, examples, others), n, rng)


def _some(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    return rows if len(rows) <= most else rng.permutation(rows)[:most]


def _chances(space: PoolSpace, rows: Ints, examples: Ints, others: Ints) -> Floats:
    """(m,) -> (m,) in [0, 1]: the share of the examples in the kernel mass around each row."""
    found = np.empty(len(rows), np.float32)
    labeled = space.of(np.concatenate([examples, others])).T
    for start in range(0, len(rows), _ROWS):
        kernel = np.exp((space.of(rows[start : start + _ROWS]) @ labeled - 1) / _WIDTH)
        mass = kernel[:, : len(examples)].sum(axis=1)
        found[start : start + _ROWS] = mass / (kernel.sum(axis=1) + _NOTHING)
    return found


def _in_turns(first: Selection, second: Selection, n: int) -> Selection:
    """An item of the one, an item of the other, each once. Scores: the rank."""
    rows = np.stack([first.items, second.items], axis=1).ravel()
    _, places = np.unique(rows, return_index=True)
    return by_rank(rows[np.sort(places)][:n])

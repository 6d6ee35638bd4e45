"""One run: a strategy labels a pool from the first budget to the last, with an oracle for the annotator.

Each budget is one round: the strategy selects what is missing up to it, the oracle labels, the head is trained
anew on all labels and measured on the test items. Junk gets no label but costs budget. What was picked is kept, for
the judges that had no part in it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.labels.embeddings import Embedded
from worker.arrays import Bools, Floats, Ints
from worker.heads import FittedHead
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.jobs.rank.exclusions import left_out
from worker.scoring.scored_items import ScoredItems
from worker.selection.pool_view import PoolView
from worker.strategies import ColdStart, Strategy, strategies

OWN = "own"  # the judge that selects: the head of the run itself


@dataclass(frozen=True)
class Row:
    """The figures once `budget` items were picked, the accuracies by one judge; the times are those of the round's
    selection alone.
    """

    pool: str
    embeddings: str  # key of what the pool was embedded by
    strategy: str
    seed: int
    judge: str
    budget: int
    labels: int  # budget less junk
    accuracy: float
    balanced_accuracy: float
    junk: int
    duplicates: int  # items of which a near-duplicate was picked before
    selection_s: float
    selection_cpu_s: float


def make_strategy(text: str) -> tuple[Strategy, bool]:
    """`name`, or with parameters `name:one=1:other=0.5`; and whether it sees the pool through the product's filters:
    near-duplicates collapsed, learned junk barred. `shortlist` does and its peers do not, as in their papers, unless
    `filtered=yes` or `filtered=no` is among the parameters. Raises ValueError.
    """
    name, *parameters = text.split(":")
    known = strategies()
    if name not in known:
        raise ValueError(f"There is no strategy {name!r}; there are {', '.join(known)}.")
    values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
    if len(values) < len(parameters):
        raise ValueError(f"Parameters are NAME=VALUE, each once; {text!r} has others.")
    filtered = values.pop("filtered", "yes" if name == "shortlist" else "no") == "yes"
    return known[name].model_validate(values), filtered


def run(
    name: str, pool: Embedded, strategy: str, seed: int, budgets: Sequence[int]
) -> tuple[list[Row], Ints]:
    """A row a budget by judge `own`, and the rows of the pool in the order in which they were picked; the same again
    for the same seed. `budgets` rise, the last is at most the pool's size.
    """
    chosen, filtered = make_strategy(strategy)
    rng = np.random.default_rng([seed, 1])
    known = _Known(pool)
    head: FittedHead | None = None
    rows, picks = list[Row](), list[Ints]()
    for before, budget in pairwise((0, *budgets)):
        probabilities = head.probabilities(pool.embeddings) if head is not None else None
        wall, cpu = time.perf_counter(), time.process_time()
        stands_for = known.stands_for(np.random.default_rng([seed, before]), filtered)
        seen = np.flatnonzero(stands_for)
        view = known.view(seen, stands_for[seen], probabilities, before, budget - before)
        items = seen[_select(chosen, view, budget - before, rng)]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        picks.append(known.annotate(items, budget - before, rng))
        labeled = np.flatnonzero(known.classes >= 0)
        accuracy, balanced = guess(pool), guess(pool)
        if len(labeled):
            # The same folds for all arms, and nothing carried over from the head before.
            fold_rng = np.random.default_rng([seed, 2])
            taught = LabeledView(pool.embeddings[labeled], known.classes[labeled], pool.n_classes)
            head = LinearHead().fit(taught, fold_rng)
            right = head.probabilities(pool.test_embeddings).argmax(axis=1) == pool.test_classes
            accuracy, balanced = float(right.mean()), balanced_accuracy(right, pool.test_classes)
        rows.append(
            Row(
                pool=name,
                embeddings=pool.key,
                strategy=strategy,
                seed=seed,
                judge=OWN,
                budget=budget,
                labels=len(labeled),
                accuracy=accuracy,
                balanced_accuracy=balanced,
                junk=int(known.broken.sum()),
                duplicates=repeats(pool.groups[known.picked]),
                selection_s=wall,
                selection_cpu_s=cpu,
            )
        )
    return rows, np.concatenate(picks)


def guess(pool: Embedded) -> float:
    """The accuracy of one, where there is no label yet."""
    return 1 / pool.n_classes


class _Known:
    """The annotator's answers so far: classes (n,), -1 where unknown; broken (n,), junk that was seen."""

    def __init__(self, pool: Embedded) -> None:
        self._pool = pool
        self._scored = ScoredItems(np.arange(len(pool.classes)), pool.pretext_losses, pool.embeddings)
        self.classes = np.full(len(pool.classes), -1)
        self.broken = np.zeros(len(pool.classes), np.bool_)

    @property
    def picked(self) -> Bools:
        return self.broken | (self.classes >= 0)

    def stands_for(self, rng: np.random.Generator, filtered: bool) -> Floats:
        """(n,) For how many items each stands that a strategy sees, as job rank shows them; 0: not seen."""
        if not filtered:
            return np.ones(len(self.classes), np.float32)
        unseen = left_out(
            self._scored,
            free=~self.picked,
            done=self.classes >= 0,
            broken=self.broken,
            copies=self._pool.copies,
            rng=rng,
        )
        return unseen.stands_for

    def view(
        self, seen: Ints, stands_for: Floats, probabilities: Floats | None, before: int, n: int
    ) -> PoolView:
        return PoolView(
            embeddings=self._pool.embeddings[seen],
            pretext_losses=self._pool.pretext_losses[seen],
            available=~self.picked[seen],
            classes=self.classes[seen],
            probabilities=probabilities[seen] if probabilities is not None else None,
            n_classes=self._pool.n_classes,
            round_size=n,
            labels_used=before,
            appearance=self._pool.thumbnails[seen],
            stands_for=stands_for,
        )

    def annotate(self, items: Ints, n: int, rng: np.random.Generator) -> Ints:
        """Label n items, which are returned; where the filters left fewer, the product serves others at random, and so
        does this.
        """
        rest = np.setdiff1d(np.flatnonzero(~self.picked), items)
        items = np.concatenate([items, rng.permutation(rest)[: n - len(items)]])
        self.classes[items] = self._pool.classes[items]
        self.broken[items] = self._pool.classes[items] < 0
        return items


def _select(strategy: Strategy, view: PoolView, n: int, rng: np.random.Generator) -> Ints:
    """Cold start is random, as in the papers: so what a strategy gains is its own."""
    try:
        return strategy.select(view, n, rng).items
    except ColdStart:
        return strategies()["random"]().select(view, n, rng).items


def balanced_accuracy(right: Floats | np.ndarray, classes: Ints) -> float:
    """(t,), (t,) -> the mean over classes of the share that is right."""
    return float((np.bincount(classes, weights=right) / np.bincount(classes)).mean())


def repeats(groups: Ints) -> int:
    """(m,) -> the number of items that follow another of the same group."""
    return len(groups) - len(np.unique(groups))

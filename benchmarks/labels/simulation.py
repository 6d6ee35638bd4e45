"""One run: a strategy labels a pool from the first budget to the last, with an oracle for the annotator.

Each budget is one round: the strategy selects what is missing up to it, the oracle labels, the head is trained
anew on all labels and measured on the test items. Junk gets no label but costs budget.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.labels.embeddings import Embedded
from worker.heads import FittedHead
from worker.heads.linear import LinearHead
from worker.pool_view import Floats, Ints, PoolView
from worker.strategies import ColdStart, Strategy, strategies


@dataclass(frozen=True)
class Row:
    """What is known once `budget` items were picked; the times are those of the round's selection alone."""

    pool: str
    embeddings: str  # key of what the pool was embedded by
    strategy: str
    seed: int
    budget: int
    labels: int  # budget less junk
    accuracy: float
    balanced_accuracy: float
    junk: int
    duplicates: int  # items of which a near-duplicate was picked before
    selection_s: float
    selection_cpu_s: float


def make_strategy(text: str) -> Strategy:
    """`name`, or with parameters `name:one=1:other=0.5`. Raises ValueError."""
    name, *parameters = text.split(":")
    known = strategies()
    if name not in known:
        raise ValueError(f"There is no strategy {name!r}; there are {', '.join(known)}.")
    return known[name].model_validate(dict(parameter.split("=", 1) for parameter in parameters))


def run(name: str, pool: Embedded, strategy: str, seed: int, budgets: Sequence[int]) -> Iterator[Row]:
    """A row a budget; the same again for the same seed. `budgets` rise, the last is at most the pool's size."""
    chosen = make_strategy(strategy)
    rng = np.random.default_rng([seed, 1])
    labeled = np.full(len(pool.classes), -1)
    picked = np.zeros(len(pool.classes), np.bool_)
    head: FittedHead | None = None
    before = 0
    for budget in budgets:
        view = PoolView(
            embeddings=pool.embeddings,
            pretext_losses=pool.pretext_losses,
            available=~picked,
            classes=labeled.copy(),
            probabilities=head.probabilities(pool.embeddings) if head is not None else None,
            n_classes=pool.n_classes,
            round_size=budget - before,
            labels_used=before,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        items = _select(chosen, view, budget - before, rng)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        picked[items] = True
        labeled[items] = pool.classes[items]
        known = np.flatnonzero(labeled >= 0)
        accuracy, balanced = 1 / pool.n_classes, 1 / pool.n_classes  # of a guess
        if len(known):
            # The same folds for all arms, and nothing carried over from the head before.
            fold_rng = np.random.default_rng([seed, 2])
            head = LinearHead().fit(pool.embeddings[known], labeled[known], pool.n_classes, fold_rng)
            right = head.probabilities(pool.test_embeddings).argmax(axis=1) == pool.test_classes
            accuracy, balanced = float(right.mean()), balanced_accuracy(right, pool.test_classes)
        before = budget
        yield Row(
            pool=name, embeddings=pool.key, strategy=strategy, seed=seed, budget=budget, labels=len(known),
            accuracy=accuracy, balanced_accuracy=balanced, junk=int((pool.classes[picked] < 0).sum()),
            duplicates=repeats(pool.groups[picked]), selection_s=wall, selection_cpu_s=cpu,
        )  # fmt: skip


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
    """(m,) -> how many of them follow another of the same group."""
    return len(groups) - len(np.unique(groups))

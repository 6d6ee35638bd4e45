"""What every strategy must keep to: a new file in worker/strategies is tested by being there."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import NotFinite
from worker.strategies import ColdStart, Strategy, strategies

every_strategy = pytest.mark.parametrize(
    "strategy", [kind() for kind in strategies().values()], ids=strategies()
)


def _one_candidate() -> PoolView:
    pool = make_pool(labeled=20, head=True)
    available = np.zeros(len(pool), np.bool_)
    available[7] = True
    return replace(pool, available=available)


def _one_class_labeled() -> PoolView:
    pool = make_pool(labeled=20, head=True)
    return replace(pool, classes=np.where(pool.labeled, 1, -1))


def _identical() -> PoolView:
    pool = make_pool(labeled=20, head=True)
    return replace(
        pool,
        embeddings=np.ones_like(pool.embeddings),
        pretext_losses=np.ones_like(pool.pretext_losses),
        probabilities=np.full((len(pool), 3), 1 / 3, np.float32),
    )


def _ties() -> PoolView:
    pool = make_pool(labeled=60, head=True)
    tied = np.tile(np.array([[0.5, 0.5, 0.0]], np.float32), (len(pool), 1))
    return replace(pool, probabilities=tied)


def _certain() -> PoolView:
    """A head without any doubt."""
    pool = make_pool(labeled=60, head=True)
    return replace(pool, probabilities=np.tile(np.array([[1, 0, 0]], np.float32), (len(pool), 1)))


def _nothing_anywhere() -> PoolView:
    """Somebody looked, and no labeled item has any class; nor does the head expect one."""
    pool = make_pool(labeled=40, head=True, several=True)
    return replace(
        pool, members=np.zeros((len(pool), 3), np.int64), probabilities=np.zeros((len(pool), 3), np.float32)
    )


SITUATIONS: dict[str, Callable[[], PoolView]] = {
    "cold": make_pool,
    "cold, a few labels": lambda: make_pool(labeled=5),
    "a head, few labels": lambda: make_pool(labeled=12, head=True),
    "a head, many labels": lambda: make_pool(n=300, labeled=100, head=True),
    "rounds of one": lambda: make_pool(labeled=60, head=True, round_size=1),
    "a round larger than the pool": lambda: make_pool(labeled=60, head=True, round_size=1000),
    "more labels used than items": lambda: make_pool(labeled=60, head=True, labels_used=10_000),
    "one item": lambda: make_pool(n=1),
    "two items": lambda: make_pool(n=2, labeled=1, head=True),
    "one candidate": _one_candidate,
    "nothing left": lambda: make_pool(labeled=120, head=True),
    "two classes": lambda: make_pool(n_classes=2, labeled=20, head=True),
    "a thousand classes": lambda: make_pool(n=1200, n_classes=1000, labeled=300, head=True),
    "one class in all": lambda: make_pool(n_classes=1, labeled=20, head=True),
    "one class labeled": _one_class_labeled,
    "identical items": _identical,
    "ties": _ties,
    "certain head": _certain,
    "several classes, cold": lambda: make_pool(several=True),
    "several classes, a few labels": lambda: make_pool(labeled=5, several=True),
    "several classes, a head": lambda: make_pool(labeled=12, head=True, several=True),
    "several classes, many labels": lambda: make_pool(n=300, labeled=100, head=True, several=True),
    "several classes, nothing anywhere": _nothing_anywhere,
    "several of a thousand classes": lambda: make_pool(
        n=1200, n_classes=1000, labeled=300, head=True, several=True
    ),
}


def _select(strategy: Strategy, pool: PoolView, n: int, seed: int = 0) -> Selection | None:
    """None where a strategy rightly says that it needs a head: there, and only there, that is the right answer."""
    try:
        return strategy.select(pool, n, np.random.default_rng(seed))
    except ColdStart:
        assert pool.probabilities is None, "ColdStart although there is a head"
        return None


def _check(selection: Selection, pool: PoolView, n: int) -> None:
    assert selection.items.dtype == np.int64
    assert selection.scores.dtype == np.float32
    assert len(selection.items) == len(selection.scores) == min(n, int(pool.available.sum()))
    assert len(np.unique(selection.items)) == len(selection.items)
    assert pool.available[selection.items].all()
    assert np.isfinite(selection.scores).all()
    assert (np.diff(selection.scores) <= 0).all()


@every_strategy
@pytest.mark.parametrize("situation", SITUATIONS)
def test_selects_available_items_best_first_and_again_the_same(strategy: Strategy, situation: str) -> None:
    """One item, some, and all there are; the pool is left as it was."""
    pool, untouched = SITUATIONS[situation](), SITUATIONS[situation]()
    for field in fields(pool):
        if isinstance(value := getattr(pool, field.name), np.ndarray):
            value.flags.writeable = False

    found = {n: _select(strategy, pool, n, seed=3) for n in (1, 30, 10_000)}
    again = _select(strategy, pool, 30, seed=3)

    for field in fields(pool):
        np.testing.assert_array_equal(getattr(pool, field.name), getattr(untouched, field.name))
    if again is None:
        assert list(found.values()) == [None, None, None]
        return
    for n, selection in found.items():
        assert selection is not None
        _check(selection, pool, n)
    some = found[30]
    assert some is not None
    np.testing.assert_array_equal(some.items, again.items)
    np.testing.assert_array_equal(some.scores, again.scores)


@every_strategy
@pytest.mark.parametrize("labeled", [20, 100])
def test_what_is_not_finite_is_named_or_does_not_matter(strategy: Strategy, labeled: int) -> None:
    pool = make_pool(n=300, labeled=labeled, head=True)
    assert pool.probabilities is not None
    row = int(pool.candidates[4])
    for array in (pool.embeddings, pool.probabilities):
        array[row] = np.nan
    pool.pretext_losses[row] = np.inf

    outcome = _selection_or_error(strategy, pool)

    if isinstance(outcome, NotFinite):
        assert outcome.row == row
        assert str(row) in str(outcome)
    else:
        assert np.isfinite(outcome.scores).all()


def _selection_or_error(strategy: Strategy, pool: PoolView) -> Selection | NotFinite:
    try:
        return strategy.select(pool, 10, np.random.default_rng(0))
    except NotFinite as error:
        return error


@every_strategy
def test_explains_itself(strategy: Strategy) -> None:
    """The docstring is the help, with paper and link; every parameter says what it does."""
    help_text = type(strategy).__doc__ or ""
    assert len(help_text) > 60
    assert "https://" in help_text or strategy.name == "random"
    for name, field in type(strategy).model_fields.items():
        assert field.description, name

from dataclasses import replace

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.arrays import Floats
from worker.selection.herding import MORE_REFERENCES, herd
from worker.selection.pool_view import PoolView
from worker.selection.spaces import PoolSpace
from worker.selection.uncertainty import one_minus_margin
from worker.strategies.shortlist import Shortlist

_DEFAULT = Shortlist()


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _picks(pool: PoolView, strategy: Shortlist = _DEFAULT, n: int = 20) -> list[int]:
    return [int(item) for item in strategy.select(pool, n, _rng()).items]


def _herded(pool: PoolView, weights: Floats | None, factors: Floats | None = None) -> list[int]:
    found = herd(pool, 20, weights, _rng(), references=MORE_REFERENCES, factors=factors, space_of=PoolSpace)
    return [int(item) for item in found.items]


def _probabilities(pool: PoolView) -> Floats:
    assert pool.probabilities is not None
    return pool.probabilities


def test_covers_the_pool_while_there_is_no_head() -> None:
    pool = make_pool(labeled=90)

    assert _picks(pool) == _herded(pool, None)


def test_a_head_that_knows_nothing_changes_nothing() -> None:
    pool = make_pool(n=400, n_classes=4, labeled=20)
    ignorant = replace(pool, probabilities=np.full((400, 4), 0.25, np.float32))

    assert _picks(ignorant) == _picks(pool)


def test_covers_what_the_head_doubts() -> None:
    pool = make_pool(n=400, labeled=30, head=True)
    doubt = one_minus_margin(_probabilities(pool))

    assert _picks(pool) == _herded(pool, doubt)
    assert doubt[_picks(pool)].mean() > 1.5 * doubt.mean()


def test_items_of_rare_classes_count_more_where_the_pool_is_skewed() -> None:
    """Nine of ten items are of class 0; the head is as unsure of all."""
    rng = _rng()
    truth = (rng.random(1_000) < 0.1).astype(np.int64)
    embeddings = (rng.normal(size=(2, 8))[truth] + rng.normal(size=(1_000, 8))).astype(np.float16)
    probabilities = np.where(truth[:, None] == np.arange(2), 0.97, 0.03).astype(np.float32)
    classes = np.where(np.arange(1_000) < 50, truth, -1)
    pool = make_pool(
        n=1_000,
        n_classes=2,
        embeddings=embeddings,
        probabilities=probabilities,
        classes=classes,
        available=classes < 0,
    )

    balanced, not_balanced = (
        truth[_picks(pool)].mean(),
        truth[_picks(pool, Shortlist(balance_below=0))].mean(),
    )

    assert balanced > 2 * not_balanced
    assert balanced >= 0.3


def test_chance_differences_between_classes_are_not_balanced() -> None:
    pool = make_pool(n=400, labeled=30, head=True)

    assert _picks(pool) == _picks(pool, Shortlist(balance_below=0))


@pytest.mark.parametrize("head", [False, True])
def test_the_pretext_loss_weighs_as_much_as_its_correlation(head: bool) -> None:
    pool = make_pool(n=600, labeled=30, head=head)

    def mean_loss(loss_weight: float) -> float:
        return float(pool.pretext_losses[_picks(replace(pool, loss_weight=loss_weight), n=100)].mean())

    # Losses are drawn at random here, so a weight on the surroundings moves the picks only a little.
    losses = [mean_loss(weight) for weight in (-0.9, 0.0, 0.9)]
    assert losses[0] < losses[2]
    assert _picks(replace(pool, loss_weight=0.0)) == _picks(pool)


def test_looks_at_thumbnails_where_embeddings_say_nothing() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(4, size=400)
    pool = make_pool(
        n=400, n_classes=4, round_size=4, embeddings=rng.normal(size=(400, 6)).astype(np.float16)
    )
    thumbnails = (rng.integers(256, size=(4, 30))[truth] * 0.8 + rng.normal(size=(400, 30)) * 4 + 20).astype(
        np.uint8
    )

    shown = Shortlist().select(replace(pool, appearance=thumbnails), 4, _rng()).items

    assert sorted(truth[shown].tolist()) == [0, 1, 2, 3]


def test_first_picks_are_one_of_each_cluster() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(5), [120, 110, 100, 90, 80])
    embeddings = rng.normal(size=(5, 16))[truth] * 5 + rng.normal(size=(len(truth), 16)) * 0.3
    pool = replace(
        make_pool(n=len(truth), n_classes=5, round_size=5), embeddings=embeddings.astype(np.float16)
    )

    assert set(truth[Shortlist().select(pool, 5, _rng()).items]) == set(range(5))


@pytest.mark.parametrize("head", [False, True])
def test_an_item_that_stands_for_others_counts_as_up_to_three(head: bool) -> None:
    pool = make_pool(n=600, labeled=30, head=head)
    of_many = np.random.default_rng(3).random(600) < 0.3
    weights = one_minus_margin(_probabilities(pool)) if head else np.ones(600, np.float32)

    three, hundred, alone = (
        _picks(replace(pool, stands_for=np.where(of_many, items, 1).astype(np.float32)))
        for items in (3, 100, 1)
    )

    assert three == hundred == _herded(pool, weights * np.where(of_many, np.float32(3), np.float32(1)))
    assert alone == _picks(pool)
    assert of_many[three].mean() > of_many[alone].mean()

from dataclasses import replace

import numpy as np

from tests.worker.pools import make_pool
from worker.herding import herd
from worker.strategies.shortlist import Shortlist
from worker.uncertainty import clustered_margin, unsureness


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_covers_the_pool_while_there_is_no_head() -> None:
    pool = make_pool(labeled=90)
    expected = herd(pool, 10, None, _rng())

    np.testing.assert_array_equal(Shortlist().select(pool, 10, _rng()).items, expected.items)


def test_covers_what_the_head_is_unsure_of_while_labels_are_few() -> None:
    pool = make_pool(labeled=44, head=True)
    assert pool.probabilities is not None
    expected = herd(pool, 10, unsureness(pool.probabilities), _rng())

    np.testing.assert_array_equal(Shortlist().select(pool, 10, _rng()).items, expected.items)


def test_asks_for_small_margins_from_15_labels_a_class_on() -> None:
    pool = make_pool(labeled=45, head=True)
    assert pool.probabilities is not None
    expected = clustered_margin(pool, pool.probabilities, 10, _rng())

    np.testing.assert_array_equal(Shortlist().select(pool, 10, _rng()).items, expected.items)
    later = Shortlist(labels_per_class=16).select(pool, 10, _rng())
    assert later.items.tolist() != expected.items.tolist()


def test_first_picks_are_one_of_each_cluster() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(5), [120, 110, 100, 90, 80])
    embeddings = rng.normal(size=(5, 16))[truth] * 5 + rng.normal(size=(len(truth), 16)) * 0.3
    pool = replace(
        make_pool(n=len(truth), n_classes=5, round_size=5), embeddings=embeddings.astype(np.float16)
    )

    assert set(truth[Shortlist().select(pool, 5, _rng()).items]) == set(range(5))

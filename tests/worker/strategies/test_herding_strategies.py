import numpy as np

from tests.worker.pools import make_pool
from worker.selection.herding import herd
from worker.selection.uncertainty import one_minus_margin
from worker.strategies.maxherding import MaxHerding
from worker.strategies.uherding import UHerding


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_maxherding_knows_no_head() -> None:
    pool = make_pool(labeled=30, head=True)

    np.testing.assert_array_equal(
        MaxHerding().select(pool, 20, _rng()).items, herd(pool, 20, None, _rng()).items
    )


def test_uherding_weighs_by_the_doubt_of_the_head() -> None:
    pool = make_pool(labeled=30, head=True)
    assert pool.probabilities is not None
    expected = herd(pool, 20, one_minus_margin(pool.probabilities), _rng()).items

    assert UHerding().select(pool, 20, _rng()).items.tolist() == expected.tolist()
    assert expected.tolist() != MaxHerding().select(pool, 20, _rng()).items.tolist()


def test_uherding_without_a_head_is_maxherding() -> None:
    pool = make_pool(labeled=30)

    np.testing.assert_array_equal(
        UHerding().select(pool, 20, _rng()).items, MaxHerding().select(pool, 20, _rng()).items
    )

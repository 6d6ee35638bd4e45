import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.strategies import ColdStart
from worker.strategies.pt4al import PT4AL, even_intervals


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_losses_are_numbers_not_text() -> None:
    """The reference code sorts text, and as text 1.9e-05 is more than 0.9, and 9.1 more than 10.5."""
    losses = np.array([1.9e-05, 9.1, 0.9, 10.5, 8.7e-06, 2.0], np.float32)
    pool = make_pool(n=6, pretext_losses=losses, round_size=1)

    selection = PT4AL(rounds=1).select(pool, 6, _rng())

    assert losses[selection.items].tolist() == sorted(losses.tolist(), reverse=True)


def test_round_0_takes_even_intervals_of_the_hardest_stratum() -> None:
    losses = np.arange(100, 0, -1, dtype=np.float32)  # row 0 is the hardest
    pool = make_pool(n=100, pretext_losses=losses, round_size=4)

    selection = PT4AL(rounds=5).select(pool, 4, _rng())

    assert selection.items.tolist() == [0, 5, 10, 15]


def test_the_intervals_stay_while_items_get_labeled() -> None:
    losses = np.arange(100, 0, -1, dtype=np.float32)
    available = np.ones(100, np.bool_)
    available[[0, 10]] = False
    pool = make_pool(n=100, pretext_losses=losses, round_size=4, available=available, labels_used=2)

    assert PT4AL(rounds=5).select(pool, 2, _rng()).items.tolist() == [5, 15]


def test_a_later_round_takes_the_least_sure_of_its_stratum() -> None:
    losses = np.arange(100, 0, -1, dtype=np.float32)
    sure = np.random.default_rng(1).permutation(np.linspace(0.5, 1, 100)).astype(np.float32)
    pool = make_pool(
        n=100,
        n_classes=2,
        pretext_losses=losses,
        round_size=4,
        labels_used=9,
        probabilities=np.column_stack([sure, 1 - sure]),
    )

    selection = PT4AL(rounds=5).select(pool, 4, _rng())

    assert selection.items.tolist() == (40 + np.argsort(sure[40:60])[:4]).tolist()


def test_where_a_stratum_runs_out_the_next_follows() -> None:
    losses = np.arange(20, 0, -1, dtype=np.float32)
    pool = make_pool(n=20, head=True, pretext_losses=losses, round_size=4, labels_used=16)

    selection = PT4AL(rounds=5).select(pool, 8, _rng())

    assert set(selection.items.tolist()) == {16, 17, 18, 19, 0, 1, 2, 3}
    assert set(selection.items[:4].tolist()) == {16, 17, 18, 19}


def test_needs_a_head_after_round_0() -> None:
    PT4AL().select(make_pool(labels_used=9), 4, _rng())
    with pytest.raises(ColdStart):
        PT4AL().select(make_pool(labels_used=10), 4, _rng())


@pytest.mark.parametrize(("length", "size"), [(0, 3), (1, 3), (3, 3), (10, 3), (11, 4), (7, 1), (5, 100)])
def test_even_intervals_are_all_of_the_range(length: int, size: int) -> None:
    assert sorted(even_intervals(length, size).tolist()) == list(range(length))

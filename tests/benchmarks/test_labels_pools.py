import numpy as np
import pytest

from benchmarks.labels import pools
from benchmarks.labels.pools import Missing, Split, clean, junk, long_tail, make_pool, near_duplicates


def make_split(items: int, classes: int = 10, size: int = 6) -> Split:
    rng = np.random.default_rng(items)
    pixels = rng.integers(256, size=(items, 3, size, size), dtype=np.uint8)
    return Split(pixels, np.arange(items) % classes)


@pytest.fixture(scope="module")
def train() -> Split:
    return make_split(52_000)


@pytest.fixture(scope="module")
def test_split() -> Split:
    return make_split(100)


def test_a_long_tail_falls_from_5000_to_100(train: Split, test_split: Split) -> None:
    pool = long_tail(train, test_split, np.random.default_rng(0))

    counts = np.bincount(pool.classes)
    assert (counts[0], counts[9]) == (5_000, 100)
    assert counts[4] == round(5_000 * 50 ** (-4 / 9))
    assert (np.diff(counts) < 0).all()
    assert len(np.unique(pool.classes[:100])) > 3  # shuffled, not class after class


def test_junk_has_no_class_and_near_duplicates_share_the_row_of_their_original(
    train: Split, test_split: Split
) -> None:
    pool = junk(train, test_split, np.random.default_rng(0), items=8_000)

    rows = np.arange(8_000)
    copies = np.flatnonzero(pool.groups != rows)
    assert len(pool.pixels) == len(pool.classes) == len(pool.groups) == 8_000
    assert (pool.classes < 0).sum() == 1_000
    assert len(copies) == 5_000
    assert len(np.unique(pool.groups[copies])) == 500
    assert (pool.groups[pool.groups] == pool.groups).all()  # originals are their own
    assert (pool.classes[pool.groups] == pool.classes).all()
    assert (pool.classes[copies] >= 0).all()


def test_near_duplicates_are_shifted_by_at_most_a_pixel_and_slightly_noisy() -> None:
    rows, columns = np.meshgrid(np.arange(20), np.arange(20), indexing="ij")
    ramp = np.stack([6 * rows, 6 * columns, 3 * (rows + columns)]).astype(
        np.uint8
    )  # a pixel's shift is 6 at most
    pixels = np.repeat(ramp[None], 50, axis=0)

    made = near_duplicates(pixels, np.random.default_rng(0))

    changes = np.abs(made.astype(int) - pixels)
    assert made.dtype == np.uint8
    assert 3 < changes.mean() < 8
    assert changes.max() < 6 + 5.5 * 4
    assert len(np.unique(made.reshape(50, -1), axis=0)) == 50


def test_the_same_generator_makes_the_same_pool(train: Split, test_split: Split) -> None:
    one, other = (clean(train, test_split, np.random.default_rng(3), items=50) for _ in range(2))
    third = clean(train, test_split, np.random.default_rng(4), items=50)

    assert (one.pixels == other.pixels).all()
    assert (one.pixels != third.pixels).any()
    assert (one.groups == np.arange(50)).all()


def test_a_pool_that_is_not_on_this_machine_says_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "CIFAR10", pools.CIFAR10 / "nowhere")

    with pytest.raises(Missing, match="shared/data/cifar10"):
        make_pool("cifar10-junk")

import numpy as np
import pytest

from benchmarks.labels import photos, pools
from benchmarks.labels.catalogue import DEVELOPMENT, KINDS, make_pool
from benchmarks.labels.photos import PHOTOS
from benchmarks.labels.pools import Missing, Split, clean, junk, long_tail, near_duplicates


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


def test_a_long_tail_falls_from_3000_to_60(train: Split, test_split: Split) -> None:
    pool = long_tail(train, test_split, np.random.default_rng(0))

    counts = np.bincount(pool.classes)
    assert (counts[0], counts[9]) == (3_000, 60)
    assert counts[4] == round(3_000 * 50 ** (-4 / 9))
    assert (np.diff(counts) < 0).all()
    assert len(np.unique(pool.classes[:100])) > 3  # shuffled, not class after class


def test_junk_has_no_class_and_near_duplicates_share_the_row_of_their_original(
    train: Split, test_split: Split
) -> None:
    pool = junk(train, test_split, np.random.default_rng(0), items=8_000)

    rows = np.arange(8_000)
    copies = np.flatnonzero(pool.groups != rows)
    assert len(pool.pixels) == len(pool.classes) == len(pool.groups) == 8_000
    assert (pool.classes < 0).sum() == 400
    assert len(copies) == 2_000
    assert len(np.unique(pool.groups[copies])) == 200
    assert len(pool.test_classes) == 0  # each seed draws its own
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


def test_pools_for_confirmation_are_not_those_for_development() -> None:
    assert set(DEVELOPMENT) == {
        "fashion-mnist",
        "cifar10",
        "long-tail",
        "junk",
        "hand_digits",
        "traffic_signs",
    }
    assert {name for name, kind in KINDS.items() if kind.role == "confirmation"} == {
        "plankton",
        "weather",
        "cifar10-long-tail",
        "cifar10-junk",
    }


@pytest.mark.skipif(not PHOTOS.exists(), reason="The photo pools are not beside the project.")
def test_photos_have_the_same_rows_at_any_size_and_frames_know_their_track() -> None:
    small, large = make_pool("traffic_signs", 8), make_pool("traffic_signs", 16)

    assert (small.pixels.shape, large.pixels.shape) == ((4_920, 3, 8, 8), (4_920, 3, 16, 16))
    assert (small.classes == large.classes).all()
    assert (small.groups == large.groups).all()
    assert (np.bincount(small.groups)[np.unique(small.groups)] == 30).all()
    assert len(np.unique(small.groups)) == 164
    assert (small.classes[small.groups] == small.classes).all()
    assert (small.groups[small.groups] == small.groups).all()
    means = small.pixels.mean(axis=(1, 2, 3)), large.pixels.mean(axis=(1, 2, 3))
    assert np.corrcoef(*means)[0, 1] > 0.99


def test_photos_that_are_missing_say_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "PHOTOS", PHOTOS / "nowhere")

    with pytest.raises(Missing, match="plankton is missing"):
        make_pool("plankton")


def test_a_pool_that_is_not_on_this_machine_says_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "CIFAR10", pools.CIFAR10 / "nowhere")

    with pytest.raises(Missing, match="shared/data/cifar10"):
        make_pool("cifar10-junk")

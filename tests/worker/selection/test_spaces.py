from dataclasses import replace

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.arrays import Floats
from worker.selection.selections import NotFinite
from worker.selection.spaces import PoolSpace, WhitenedSpace


def _nearest_of_same(points: Floats, truth: np.ndarray) -> float:
    distances = ((points[:, None] - points) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((truth[distances.argmin(axis=1)] == truth).mean())


def test_a_loud_direction_that_means_nothing_does_not_say_who_is_near() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=300)
    loud = (
        rng.normal(size=(300, 5)) @ rng.normal(size=(5, 10)) * 100
    )  # over all dimensions: scaling cannot help
    embeddings = (loud + rng.normal(size=(300, 10)) * 2).astype(np.float32)
    embeddings[:, 0] += 30 * truth

    whitened = WhitenedSpace(embeddings, None).of(embeddings, None)

    scaled = (embeddings - embeddings.mean(axis=0)) / embeddings.std(axis=0)
    assert _nearest_of_same(whitened, truth) > 0.8
    assert _nearest_of_same(scaled, truth) < 0.75
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1, atol=1e-5)


def test_thumbnails_tell_apart_what_embeddings_do_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=300)
    embeddings = rng.normal(size=(300, 10)).astype(np.float32)
    thumbnails = (60 + 100 * truth[:, None] + rng.normal(size=(300, 30)) * 20).astype(np.uint8)

    without = WhitenedSpace(embeddings, None).of(embeddings, None)
    beside = WhitenedSpace(embeddings, thumbnails).of(embeddings, thumbnails)

    assert _nearest_of_same(beside, truth) > _nearest_of_same(without, truth) + 0.2
    np.testing.assert_allclose(np.linalg.norm(beside, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("items", [1, 2, 50])
def test_items_that_are_all_the_same_are_all_in_one_place(items: int) -> None:
    embeddings, thumbnails = np.ones((items, 4), np.float16), np.full((items, 6), 7, np.uint8)

    points = WhitenedSpace(embeddings, thumbnails).of(embeddings, thumbnails)

    assert np.isfinite(points).all()
    assert (points == points[0]).all()


def test_rows_of_a_pool() -> None:
    thumbnails = np.random.default_rng(0).integers(256, size=(120, 18), dtype=np.uint8)
    pool = make_pool(appearance=thumbnails)
    space = PoolSpace(pool, np.arange(60))

    everything = space.of(np.arange(120))

    np.testing.assert_allclose(space.of(np.array([5, 3])), everything[[5, 3]], atol=1e-6)
    sample = WhitenedSpace(pool.embeddings[:60], thumbnails[:60])
    np.testing.assert_allclose(everything, sample.of(pool.embeddings, thumbnails), atol=1e-6)


def test_a_value_that_is_not_finite_is_named_by_its_row() -> None:
    pool = make_pool()
    embeddings = pool.embeddings.copy()
    embeddings[17, 2] = np.nan

    with pytest.raises(NotFinite) as caught:
        PoolSpace(replace(pool, embeddings=embeddings), np.arange(10)).of(np.array([3, 17]))

    assert caught.value.row == 17

from dataclasses import replace

import numpy as np

from benchmarks.labels.embeddings import Embedded
from benchmarks.labels.split import draw
from tests.benchmarks.clusters import make_embedded


def without_test(pool: Embedded) -> Embedded:
    return replace(pool, test_embeddings=pool.test_embeddings[:0], test_classes=pool.test_classes[:0])


def test_each_seed_sees_its_own_part_of_the_pool() -> None:
    pool = make_embedded()

    one, again, other = draw(pool, 1), draw(pool, 1), draw(pool, 2)

    assert len(one.rows) == len(one.pool.classes) == 240
    assert one.rows.tolist() == again.rows.tolist() != other.rows.tolist()
    assert (one.pool.embeddings == pool.embeddings[one.rows]).all()
    assert one.test.tolist() == list(range(300, 390))  # its own test items, after those of the pool
    assert (one.pool.test_classes == pool.test_classes).all()


def test_without_test_items_each_seed_draws_them_from_every_class() -> None:
    pool = without_test(make_embedded(junk=50))

    one, other = draw(pool, 1), draw(pool, 2)

    assert len(np.intersect1d(one.rows, one.test)) == 0
    assert sorted(set(one.pool.test_classes.tolist())) == [0, 1, 2]  # no junk
    assert 55 < len(one.test) < 70
    assert one.test.tolist() != other.test.tolist()
    assert one.pool.n_classes == 3
    assert (one.pool.classes < 0).any()


def test_no_track_is_on_both_sides_and_copies_are_tested_as_the_pool_holds_them() -> None:
    pool = without_test(make_embedded(items=400))
    tracks = np.arange(400) // 8 * 8
    pool = replace(pool, groups=tracks, classes=pool.classes[tracks])

    for seed in range(5):
        drawn = draw(pool, seed)
        assert not np.isin(tracks[drawn.rows], tracks[drawn.test]).any()
        assert (np.unique(tracks[drawn.test], return_counts=True)[1] == 8).all()


def test_a_copy_stands_for_its_original_where_that_is_not_shown() -> None:
    pool = make_embedded(items=100, copies=40)  # rows 60 to 99 repeat row 0

    with_original, without = (
        next(drawn for drawn in (draw(pool, seed) for seed in range(100)) if (0 in drawn.rows) == shown)
        for shown in (True, False)
    )

    for drawn, stands in ((with_original, 0), (without, None)):
        copies = drawn.rows[drawn.pool.copies]
        shown = drawn.rows[drawn.rows >= 60]
        assert set(copies[:, 1].tolist()) == {shown[0] if stands is None else stands}
        assert copies[:, 0].tolist() == shown[1 if stands is None else 0 :].tolist()

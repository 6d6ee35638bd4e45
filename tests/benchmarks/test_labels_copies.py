import numpy as np

from benchmarks.labels.copies import find_copies
from benchmarks.labels.pools import near_duplicates


def test_near_duplicates_as_the_pools_make_them_are_found() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(256, size=(60, 3, 7, 7), dtype=np.uint8)
    pictures = coarse.repeat(4, axis=2).repeat(4, axis=3)
    pixels = np.concatenate([pictures, near_duplicates(pictures[:20], rng)])

    copies = find_copies(pixels)

    assert sorted(map(tuple, copies.tolist())) == [(60 + row, row) for row in range(20)]

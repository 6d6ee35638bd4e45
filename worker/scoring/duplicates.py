"""Detection of duplicates: stars of near-duplicates, each around its representative."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from hashlib import blake2b

import numpy as np

from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Sketcher
from worker.selection.index import likely_nearest

_NEIGHBOURS = 16  # among which a copy is looked for
_PASSES = 10  # groups larger than that take more than one


def threshold(sketcher: Sketcher, views: Floats, strangers: Floats) -> float:
    """The largest difference of two sketches of the same item; see `Sketcher.differences`.

    views      (m,) differences of two slightly changed views of one item: copies differ like these
    strangers  (m,) differences of random pairs of items

    A share of what random pairs differ by is the most: where all are alike, noise is no small change. (What
    nearest neighbours differ by would say less: in a pool full of duplicates these are the duplicates.)
    """
    if not len(views):
        return 0.0
    return float(min(1.1 * np.quantile(views, 0.99), sketcher.most_of_strangers * np.median(strangers)))


def representatives(
    sketcher: Sketcher | None, rows: Bytes, contents: Sequence[str | None], largest: float
) -> Ints:
    """(n,) the row that stands for each: its own, or an earlier one that is the same.

    rows      (n, f) sketches by the sketcher; without one, only equal bytes are the same
    contents  (n,) a hash of each item's bytes, where it is known
    largest   the largest difference within a group, see `threshold`

    Every member differs by at most `largest` from its representative itself, so groups never become chains.
    The lowest row of a group represents it.
    """
    equal = _first_equal(contents)
    if sketcher is None:
        return equal
    represented = _first_equal(
        [blake2b(row.tobytes(), digest_size=16).digest() for row in (rows[first] for first in equal)]
    )
    asking, places = np.unique(represented), sketcher.places(rows)
    for _ in range(_PASSES):
        pairs, crowded = _same_items(sketcher, rows, places, asking, np.unique(represented), largest)
        if not len(pairs):
            break
        loose = _join(sketcher, rows, represented, _stars(pairs), largest)
        asking = np.union1d(crowded, loose)
        asking = asking[represented[asking] == asking]
    return represented


def _first_equal(keys: Sequence[Hashable]) -> Ints:
    """(n,) -> (n,) the first row with the same key; None is like nothing else."""
    first: dict[Hashable, int] = {}
    rows = (row if key is None else first.setdefault(key, row) for row, key in enumerate(keys))
    return np.fromiter(rows, np.int64, len(keys))


def _same_items(
    sketcher: Sketcher, rows: Bytes, places: Floats, asking: Ints, points: Ints, largest: float
) -> tuple[Ints, Ints]:
    """Pairs (p, 2) of one of `asking` and one of `points`; and those of `asking` that may have more copies than
    were looked at.
    """
    k = min(_NEIGHBOURS + 1, len(points))  # the nearest is usually the row itself
    near = points[likely_nearest(places[asking], places[points], k)[1]]
    same = (sketcher.differences(rows, asking, near) <= largest) & (near != asking[:, None])
    copies = same.sum(axis=1)
    return np.column_stack([np.repeat(asking, copies), near[same]]), asking[copies >= _NEIGHBOURS]


def _stars(pairs: Ints) -> dict[int, int]:
    """Pairs (p, 2) -> the center of each row that is not a center itself; a center is the lowest of its star."""
    same = defaultdict(set)
    for one, other in pairs.tolist():
        same[one].add(other)
        same[other].add(one)
    centers: dict[int, int] = {}
    for row in sorted(same):
        if row not in centers:
            for other in same[row]:
                if other > row:
                    centers.setdefault(other, row)
    return centers


def _join(
    sketcher: Sketcher, rows: Bytes, represented: Ints, centers: dict[int, int], largest: float
) -> Ints:
    """Moves rows to their new representatives, in place; returns those that are too far from it, and stand for
    themselves again.
    """
    to = np.arange(len(represented))
    to[list(centers)] = list(centers.values())
    moved = np.flatnonzero(to[represented] != represented)
    represented[moved] = to[represented[moved]]
    far = sketcher.differences(rows, moved, represented[moved][:, None])[:, 0] > largest
    loose = moved[far & ~np.isin(moved, list(centers))]
    represented[loose] = loose
    return loose

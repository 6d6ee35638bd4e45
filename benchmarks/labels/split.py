"""The part of a pool that one seed works on, and its own test items where the pool has none. So intervals over seeds
hold the chance of the pool too: one order of one pool decides nothing.
"""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.labels.embeddings import Embedded
from worker.arrays import Ints

_SHOWN = 0.8  # of the items that are not tested
_TESTED = 0.25  # of each class's groups, at least one


@dataclass(frozen=True)
class Drawn:
    """rows (m,): of the pool; test (t,): of the pool's items followed by its own test items; pool: these as a pool,
    whose row i is row rows[i]
    """

    rows: Ints
    test: Ints
    pool: Embedded


def draw(pool: Embedded, seed: int) -> Drawn:
    """The same for the same seed. No near-duplicate of a test item is shown, as far as `groups` knows them; junk is
    never tested.
    """
    rng = np.random.default_rng([seed, 3])
    n, own = len(pool.classes), len(pool.test_classes)
    test = np.arange(n, n + own) if own else _tested(pool, rng)
    left = (
        np.setdiff1d(np.arange(n), test) if own else np.flatnonzero(~np.isin(pool.groups, pool.groups[test]))
    )
    rows = np.sort(rng.permutation(left)[: round(_SHOWN * len(left))])
    return Drawn(rows, test, _part(pool, rows, test))


def _tested(pool: Embedded, rng: np.random.Generator) -> Ints:
    groups = np.unique(pool.groups)
    classes, found = pool.classes[groups], []
    for class_ in range(pool.n_classes):
        some = rng.permutation(groups[classes == class_])
        found.append(some[: max(1, round(_TESTED * len(some)))])
    return np.flatnonzero(np.isin(pool.groups, np.concatenate(found)) & (pool.classes >= 0))


def _part(pool: Embedded, rows: Ints, test: Ints) -> Embedded:
    return replace(
        pool,
        embeddings=pool.embeddings[rows],
        pretext_losses=pool.pretext_losses[rows],
        classes=pool.classes[rows],
        groups=pool.groups[rows],
        copies=_copies(pool.copies, rows, len(pool.classes)),
        thumbnails=pool.thumbnails[rows],
        test_embeddings=np.concatenate([pool.embeddings, pool.test_embeddings])[test],
        test_classes=np.concatenate([pool.classes, pool.test_classes])[test],
    )


def _copies(copies: Ints, rows: Ints, items: int) -> Ints:
    """(m, 2) as `Embedded` holds them, among `rows` alone. The lowest row of a group stands for it; where that is not
    shown, the next does.
    """
    original = np.arange(items)
    original[copies[:, 0]] = copies[:, 1]
    _, first, inverse = np.unique(original[rows], return_index=True, return_inverse=True)
    found = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    return np.column_stack([found, first[inverse][found]])

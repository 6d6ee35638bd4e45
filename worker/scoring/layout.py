"""Items in two dimensions, near where they are alike: t-SNE over their nearest neighbours."""

from collections.abc import Callable

import numpy as np

from worker.arrays import Floats
from worker.selection.index import likely_nearest

_NEIGHBOURS = 15
_FEW = 60  # points, for which directions of largest variance serve as well
_EARLY, _LATE = 250, 500  # steps
_MANY = 50_000  # points; beyond, clusters are held together a little more, or the steps do not suffice
_REPORTED_EVERY = 25  # steps


def two_dimensions(
    points: Floats, rng: np.random.Generator, threads: int | None, report: Callable[[float], None]
) -> Floats:
    """(n, d) -> (n, 2) float32: places in which what is near in d dimensions is near. report: of the share done.

    t-SNE, van der Maaten and Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html, and
    Linderman et al. 2019, https://doi.org/10.1038/s41592-018-0308-4; started and stepped as Kobak and Berens 2019
    have it, https://doi.org/10.1038/s41467-019-13056-x: from the main directions, so that the large picture is theirs.
    """
    start = _main_directions(points)
    if len(points) <= _FEW:
        return start
    # Imported late: it takes a second, and only this needs it.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    distances, rows = likely_nearest(points, points, _NEIGHBOURS + 1)
    report(0.1)
    # The first neighbour of a point is the point itself, unless another one has the same place.
    neighbours = PrecomputedNeighbors(rows[:, 1:], np.sqrt(distances[:, 1:]))
    jobs = threads or -1  # all there are
    affinities = Uniform(knn_index=neighbours, k_neighbors=_NEIGHBOURS, n_jobs=jobs)
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    start += rng.normal(scale=1e-6, size=start.shape).astype(
        np.float32
    )  # equal items have equal places, else
    done = 0

    def step(*_: object) -> None:
        nonlocal done
        done += _REPORTED_EVERY
        report(0.1 + 0.9 * min(1.0, done / (_EARLY + _LATE)))

    layout = TSNEEmbedding(
        start.astype(np.float64),
        affinities,
        negative_gradient_method="auto",
        n_jobs=jobs,
        random_state=int(rng.integers(2**31)),
        callbacks=[step],
        callbacks_every_iters=_REPORTED_EVERY,
    )
    layout.optimize(_EARLY, exaggeration=12, momentum=0.5, inplace=True, propagate_exception=True)
    late = 2 if len(points) > _MANY else 1
    layout.optimize(_LATE, exaggeration=late, momentum=0.8, inplace=True, propagate_exception=True)
    return np.asarray(layout, np.float32)


def _main_directions(points: Floats) -> Floats:
    """(n, d) -> (n, 2) float32"""
    centred = points - points.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    found = centred @ directions[:, ::-1][:, :2]
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1]))).astype(np.float32)

"""Neighbours and k-means, exact up to 100,000 points. The only file that knows faiss."""

import faiss
import numpy as np

from worker.arrays import Floats, Ints
from worker.selection.seeding import plus_plus

EXACT = 100_000  # points that k-means is trained on; a random part of that size stands for more
_CELLS_SEARCHED = 8
_ITERATIONS = 10  # after k-means++ starts; ten more lower the squared distances by 0.3 % (Fashion-MNIST)


def nearest(queries: Floats, points: Floats, k: int) -> tuple[Floats, Ints]:
    """The k nearest of `points` (m, d) to each of `queries` (q, d), by squared Euclidean distance; 1 <= k
    <= m.

    Returns squared distances (q, k), rising along a row, and rows of `points` (q, k).
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"k must be between 1 and the number of points, {len(points)}; got {k}")
    distances, rows = faiss.knn(np.ascontiguousarray(queries), np.ascontiguousarray(points), k)
    return np.maximum(distances, 0), rows  # rounding may leave -1e-7 between equal points


def likely_nearest(queries: Floats, points: Floats, k: int) -> tuple[Floats, Ints]:
    """As `nearest`, and the same up to 100,000 points. Among more only the cells around a query are searched (an
    inverted file, Jégou et al. 2011, https://hal.science/inria-00514462): a few per cent of the neighbours are
    missed, near copies hardly ever. Where too few are found, the last is repeated.
    """
    if len(points) <= EXACT:
        return nearest(queries, points, k)
    cells = round(len(points) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(points.shape[1]), points.shape[1], cells)
    sample = np.random.default_rng(0).choice(len(points), 40 * cells, replace=False)
    index.train(np.ascontiguousarray(points[np.sort(sample)]))
    index.add(np.ascontiguousarray(points))
    index.nprobe = _CELLS_SEARCHED
    distances, rows = index.search(np.ascontiguousarray(queries), k)
    last = (rows >= 0).sum(axis=1, keepdims=True) - 1
    found = np.minimum(np.arange(k), np.maximum(last, 0))
    distances, rows = np.take_along_axis(distances, found, 1), np.take_along_axis(rows, found, 1)
    return np.maximum(distances, 0), rows


def k_means(points: Floats, k: int, rng: np.random.Generator) -> Ints:
    """(m, d) -> (m,) cluster of each point, in [0, k); 1 <= k. Clusters may stay empty where points
    coincide.
    """
    if len(points) <= k:
        return np.arange(len(points))
    return nearest(points, k_means_centers(points, k, rng), 1)[1][:, 0]


def k_means_centers(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    """(m, d) -> (k, d), 1 <= k <= m: k-means++ starts, then Lloyd's steps; exact up to 100,000 points."""
    sample = points
    if len(points) > EXACT:
        sample = points[np.sort(rng.choice(len(points), EXACT, replace=False))]
    sample = np.ascontiguousarray(sample)
    starts = plus_plus([sample], k, int(rng.integers(len(sample))), rng)
    clusters = faiss.Kmeans(
        points.shape[1],
        k,
        niter=_ITERATIONS,
        seed=int(rng.integers(2**31)),
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    clusters.train(sample, init_centroids=sample[starts])
    return np.asarray(clusters.centroids, dtype=np.float32)

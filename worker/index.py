"""Exact neighbours and k-means. The only file that knows faiss."""

import faiss
import numpy as np

from worker.pool_view import Floats, Ints

_ITERATIONS = 20


def nearest(queries: Floats, points: Floats, k: int) -> tuple[Floats, Ints]:
    """The k nearest of `points` (m, d) to each of `queries` (q, d), by squared Euclidean distance; 1 <= k
    <= m.

    Returns squared distances (q, k), rising along a row, and rows of `points` (q, k).
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"k must be between 1 and the number of points, {len(points)}; got {k}")
    distances, rows = faiss.knn(np.ascontiguousarray(queries), np.ascontiguousarray(points), k)
    return np.maximum(distances, 0), rows  # rounding may leave -1e-7 between equal points


def k_means(points: Floats, k: int, rng: np.random.Generator) -> Ints:
    """(m, d) -> (m,) cluster of each point, in [0, k); 1 <= k. Clusters may stay empty where points
    coincide.
    """
    if len(points) <= k:
        return np.arange(len(points))
    clusters = faiss.Kmeans(
        points.shape[1], k, niter=_ITERATIONS, seed=int(rng.integers(2**31)),
        min_points_per_centroid=1, max_points_per_centroid=len(points),
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
    )  # fmt: skip
    points = np.ascontiguousarray(points)
    clusters.train(points)
    _, cluster = clusters.index.search(points, 1)
    return np.asarray(cluster[:, 0], dtype=np.int64)

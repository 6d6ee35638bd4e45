import numpy as np

from tests.worker.pools import make_pool
from worker.selection.herding import StandardisedSpace
from worker.strategies.kmeans import KMeans


def test_picks_the_middle_of_each_cluster_without_a_label() -> None:
    truth = np.repeat(np.arange(5), [30, 70, 50, 60, 40])
    rng = np.random.default_rng(1)
    embeddings = (np.eye(5)[truth] * 10 + rng.normal(size=(250, 5)) * 0.5).astype(np.float16)
    classes = np.where(np.arange(250) == 40, 1, -1)  # one label, in the largest
    pool = make_pool(n=250, embeddings=embeddings, classes=classes, available=classes < 0)

    items = KMeans().select(pool, 4, np.random.default_rng(3)).items

    assert truth[items].tolist() == [3, 2, 4, 0]
    points = StandardisedSpace(pool, np.arange(250)).of(np.arange(250))
    for item in items:
        members = np.flatnonzero(truth == truth[item])
        distances = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        assert np.linalg.norm(points[item] - points[members].mean(axis=0)) <= distances.min() + 1e-3

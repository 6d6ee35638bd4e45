"""The same strategies by scikit-activeml, on the same vectors and with the same head, and what both optimise."""

import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge, CoreSet, DropQuery, MaxHerding, TypiClust

from benchmarks import select as bench
from worker.arrays import Floats, Ints
from worker.selection.herding import StandardisedSpace, kernel, kernel_width
from worker.selection.index import nearest
from worker.selection.pool_view import PoolView
from worker.selection.seeding import squared_distances

_VIEWS = 3
_KEPT = 0.25


def version() -> str:
    return metadata.version("scikit-activeml")


class FixedHead(SkactivemlClassifier):  # type: ignore[misc]
    """The pool's linear head, on standardised embeddings; beside classes it returns the directions to cluster."""

    def __init__(self, weights: Floats, bias: Floats) -> None:
        super().__init__()
        self.weights, self.bias = weights, bias

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FixedHead":  # noqa: N803
        return self

    def predict_proba(self, X: Floats) -> Floats:  # noqa: N803
        return bench.softmax(X @ self.weights + self.bias)

    def predict(self, X: Floats) -> tuple[Ints, Floats]:  # noqa: N803
        lengths = np.linalg.norm(X, axis=1, keepdims=True)
        return (X @ self.weights + self.bias).argmax(axis=1), X / np.maximum(lengths, 1e-6)


def select(folder: Path, name: str, picks: int) -> bench.Run:
    """Timed from the vectors on; ours is timed from the memory-mapped embeddings on."""
    pool = _Vectors(folder)
    y = np.where(pool.view.labeled, pool.view.classes, np.nan)
    query = PEERS[name]
    started = time.perf_counter()
    items = query(pool, y, picks)
    return bench.Run(time.perf_counter() - started, bench.peak_gb(), np.asarray(items, np.int64))


class _Vectors:
    """The view of our strategies, as arrays: standardised embeddings, directions, and the head on the former."""

    def __init__(self, folder: Path) -> None:
        self.view: PoolView = bench.open_pool(folder)
        everything = np.arange(len(self.view))
        embeddings = self.view.embeddings.astype(np.float32)
        space = StandardisedSpace(self.view, everything)
        self.standardised, self.directions = space.standardised(everything), space.of(everything)
        weights = np.load(folder / "weights.npy")
        self.head = FixedHead(embeddings.std(axis=0)[:, None] * weights, embeddings.mean(axis=0) @ weights)
        labels = int(self.view.labeled.sum()) + self.view.round_size
        self.width = kernel_width(self.directions[:3_000], labels)


def _coreset(pool: _Vectors, y: Floats, picks: int) -> Ints:
    return np.asarray(CoreSet(random_state=0).query(pool.directions, y, batch_size=picks))


def _typiclust(pool: _Vectors, y: Floats, picks: int) -> Ints:
    return np.asarray(TypiClust(random_state=0, k=20).query(pool.directions, y, batch_size=picks))


def _maxherding(pool: _Vectors, y: Floats, picks: int) -> Ints:
    query = MaxHerding(random_state=0, metric="rbf", metric_dict={"gamma": 1 / pool.width})
    return np.asarray(query.query(pool.directions, y, batch_size=picks))


def _badge(pool: _Vectors, y: Floats, picks: int) -> Ints:
    query = Badge(random_state=0)
    return np.asarray(query.query(pool.standardised, y, pool.head, fit_clf=False, batch_size=picks))


def _dropquery(pool: _Vectors, y: Floats, picks: int) -> Ints:
    query = DropQuery(random_state=0, n_dropout_samples=_VIEWS, dropout_rate=1 - _KEPT)
    return np.asarray(query.query(pool.standardised, y, pool.head, fit_clf=False, batch_size=picks))


PEERS: dict[str, Callable[[_Vectors, Floats, int], Ints]] = {
    "badge": _badge,
    "coreset": _coreset,
    "dropquery": _dropquery,
    "maxherding": _maxherding,
    "typiclust": _typiclust,
}


def objectives(folder: Path, name: str, items: Ints) -> dict[str, float]:
    """The strategy's objectives for the picks `items`: distances are better small, `coverage`, `changed` large."""
    pool = _Vectors(folder)
    labeled = np.flatnonzero(pool.view.labeled)
    if name == "coreset":
        return {
            "radius": float(np.sqrt(_to_nearest(pool.directions, np.concatenate([labeled, items])).max()))
        }
    if name == "maxherding":
        picked = pool.directions[np.concatenate([labeled, items])]
        return {"coverage": float(kernel(picked, pool.directions, pool.width).max(axis=0).mean())}
    if name == "badge":
        return {"mean_squared_distance": _gradient_potential(pool, items)}
    if name == "dropquery":
        changed = _changed(pool)
        unsure = pool.directions[changed > 0.5]
        return {
            "changed": float(changed[items].mean()),
            "mean_squared_distance": float(nearest(unsure, pool.directions[items], 1)[0].mean()),
        }
    distances = nearest(pool.directions[items], pool.directions, 21)[0]
    return {
        "neighbour_distance": float(np.sqrt(distances[:, 1:]).mean()),
        "mean_squared_distance": float(_to_nearest(pool.directions, np.concatenate([labeled, items])).mean()),
    }


def _to_nearest(points: Floats, rows: Ints) -> Floats:
    return nearest(points, points[rows], 1)[0][:, 0]


def _gradient_potential(pool: _Vectors, items: Ints) -> float:
    misses = pool.head.predict_proba(pool.standardised)
    misses[np.arange(len(misses)), misses.argmax(axis=1)] -= 1
    gradients = [misses, pool.standardised]
    blocks = [
        squared_distances(gradients, slice(start, start + 4_096), items).min(axis=1)
        for start in range(0, len(misses), 4_096)
    ]
    return float(np.concatenate(blocks).mean())


def _changed(pool: _Vectors) -> Floats:
    """(n,) the share of 20 dropout views that change the likeliest class."""
    rng, (likeliest, _) = np.random.default_rng(1), pool.head.predict(pool.standardised)
    views = [
        pool.head.predict(pool.standardised * (rng.random(pool.standardised.shape, np.float32) < _KEPT))[0]
        for _ in range(20)
    ]
    return np.asarray(np.mean([view != likeliest for view in views], axis=0), dtype=np.float32)

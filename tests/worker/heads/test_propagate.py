import numpy as np
import pytest

from worker.arrays import Floats, Ints
from worker.heads import pool_graph
from worker.heads.auto import AutoHead
from worker.heads.calibration import sureness_of
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.heads.mlp import MlpHead
from worker.heads.pool_graph import PoolGraph
from worker.heads.propagate import PropagateHead


def _rings(n: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Two rings, one within the other: no straight line divides them."""
    classes, angles = np.arange(n) % 2, rng.uniform(0, 2 * np.pi, n)
    radius = 1 + 2 * classes + rng.normal(size=n) * 0.1
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1).astype(np.float32), classes


def _clusters(n: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Four classes of four clusters each, in 16 dimensions: a label says something of its own cluster only."""
    clusters = rng.integers(16, size=n)
    centers = np.random.default_rng(1).normal(size=(16, 16)) * 2
    return (centers[clusters] + rng.normal(size=(n, 16))).astype(np.float32), clusters % 4


def test_a_guess_is_never_surer_than_nothing() -> None:
    """Not even by rounding: sureness is a weight."""
    guesses = [sureness_of(np.full((1, classes), 1 / classes, np.float32))[0] for classes in range(2, 40)]
    assert min(guesses) >= 0
    assert max(guesses) < 1e-5
    assert sureness_of(np.eye(3, dtype=np.float32)) == pytest.approx(1)


def test_classes_spread_along_a_ring() -> None:
    """One label on each ring is enough where neighbours are of the same class."""
    rng = np.random.default_rng(0)
    classes, angles = np.arange(600) % 2, rng.uniform(0, 2 * np.pi, 600)
    points = np.zeros((600, 4), np.float32)  # the rings lie crosswise: no plane divides them
    points[np.arange(600), 2 * classes], points[np.arange(600), 2 * classes + 1] = (
        np.cos(angles),
        np.sin(angles),
    )
    points += rng.normal(size=points.shape).astype(np.float32) * 0.05
    labels = np.zeros((600, 2), np.float32)
    labels[[0, 1], classes[[0, 1]]] = 1

    graph = PoolGraph(points, np.random.default_rng(0))
    spread = labels
    for _ in range(20):  # 30 steps of ten neighbours do not come around a ring of 300
        spread = graph.spread(spread)

    assert (spread.argmax(axis=1) == classes).mean() > 0.95


def test_neighbours_are_found_whatever_the_scales_of_the_directions() -> None:
    """What tells the classes apart varies little; large directions that say nothing drown it before whitening."""
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4
    points = (
        np.concatenate([np.eye(4)[classes] * 3, np.zeros((400, 4))], axis=1) + rng.normal(size=(400, 8)) * 0.3
    )
    points = (points * np.repeat([1, 100], 4) @ np.linalg.qr(rng.normal(size=(8, 8)))[0]).astype(np.float32)
    graph = PoolGraph(points, rng)

    nodes = graph.nodes_of(points[:4])
    labels = np.eye(4, dtype=np.float32)[classes[graph.rows]] * np.isin(np.arange(400), nodes)[:, None]

    assert (graph.rows[nodes] == np.arange(4)).all()
    assert (graph.spread(labels).argmax(axis=1) == classes[graph.rows]).mean() > 0.9


def test_appearance_shows_neighbours_that_embeddings_do_not() -> None:
    rng = np.random.default_rng(0)
    classes, points = np.arange(400) % 4, rng.normal(size=(400, 8)).astype(np.float32)
    grey = rng.integers(0, 255, (4, 66))[classes] * 0.5 + rng.normal(60, 2, (400, 66))
    labels = np.zeros((400, 4), np.float32)
    labels[np.arange(20), classes[:20]] = 1

    right = []
    for shown in (grey.clip(0, 255).astype(np.uint8), None):
        spread = PoolGraph(points, np.random.default_rng(0), appearance=shown).spread(labels)
        right.append((spread.argmax(axis=1) == classes).mean())

    assert right[0] > right[1] + 0.3


def _gain(seed: int) -> float:
    """In accuracy, by learning from the pool too."""
    rng = np.random.default_rng(seed)
    (pool, truth), (unseen, unseen_truth) = _clusters(800, rng), _clusters(500, rng)
    graph = PoolGraph(pool, rng)
    view = LabeledView(pool[:24], truth[:24], 4, lambda: graph)
    with_pool, without = (
        head.fit(view, np.random.default_rng(0)).probabilities(unseen).argmax(axis=1) == unseen_truth
        for head in (PropagateHead(), LinearHead())
    )
    return float(with_pool.mean() - without.mean())


def test_the_pool_helps_when_labels_are_few() -> None:
    assert np.mean([_gain(seed) for seed in range(5)]) > 0.02


def test_a_random_part_stands_for_a_large_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_graph, "_NODES", 100)
    pool, truth = _clusters(400, np.random.default_rng(0))

    graph = PoolGraph(pool, np.random.default_rng(0), rows=np.arange(200, 400))
    fitted = PropagateHead().fit(
        LabeledView(pool[:60], truth[:60], 4, lambda: graph), np.random.default_rng(0)
    )

    assert len(graph) == 100
    assert all((graph._embeddings[node] == pool[200:]).all(axis=1).any() for node in range(100))
    assert (fitted.probabilities(pool).argmax(axis=1) == truth).mean() > 0.6


def test_nothing_spreads_through_what_is_aside() -> None:
    """An arc of items, each near the next; with its middle aside the far half is not reached."""
    angles = np.linspace(0, np.pi, 60)
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.zeros((60, 1), np.float32)
    labels[0] = 1
    middle = np.arange(15, 45)

    whole, cut = (PoolGraph(arc, np.random.default_rng(0), aside=aside) for aside in (None, middle))
    reached, not_reached = whole.spread(labels), cut.spread(labels)

    assert reached[50:].min() > 0
    assert not_reached[15:].max() == 0
    assert (len(whole), len(cut)) == (60, 30)
    assert not np.isin(cut.some(60, np.random.default_rng(0)), middle).any()
    assert not np.isin(cut.nodes_of(arc), middle).any()
    assert (whole.similarities != cut.similarities).nnz == 0  # so it may be kept


def test_a_hidden_layer_divides_what_no_line_does() -> None:
    points, classes = _rings(400, np.random.default_rng(0))
    unseen, truth = _rings(400, np.random.default_rng(1))

    mlp, linear = (
        (
            head.fit(LabeledView(points, classes, 2), np.random.default_rng(0))
            .probabilities(unseen)
            .argmax(axis=1)
            == truth
        ).mean()
        for head in (MlpHead(), LinearHead())
    )

    assert mlp > 0.95
    assert linear < 0.7


def test_auto_takes_the_head_that_the_labels_speak_for() -> None:
    rings, ring_classes = _rings(400, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    line = rng.normal(size=(60, 5)).astype(np.float32)

    on_rings = AutoHead().fit(LabeledView(rings, ring_classes, 2), np.random.default_rng(0))
    on_a_line = AutoHead().fit(
        LabeledView(line, (line[:, 0] > 0).astype(np.int64), 2), np.random.default_rng(0)
    )

    assert on_rings.name == "mlp"
    assert on_a_line.name == "linear"
    assert (on_rings.probabilities(rings).argmax(axis=1) == ring_classes).mean() > 0.95

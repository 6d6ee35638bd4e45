"""What it takes to select from a large pool: time and memory of one selection, in a process of its own."""

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labels.simulation import make_strategy
from worker.heads.linear import LinearHead
from worker.pool_view import PoolView

DIMENSIONS = 256
CLASSES = 10
_CLUSTERS = 100
_PICKS = 1_000
_LABELS = (100, 1_000)  # before and after strategies usually turn from covering to asking
_ROWS = 65_536


@dataclass(frozen=True)
class Cost:
    """seconds of the slower of two selections, with 100 and with 1,000 labels; peak memory of the process."""

    seconds: float
    peak_gb: float


def selection_cost(strategy: str, items: int) -> Cost:
    """1,000 picks from synthetic clusters, embeddings float16 of 256 dimensions, memory-mapped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.npy"
        classes = _write_clusters(path, items, np.random.default_rng(0))
        np.save(path.with_name("classes.npy"), classes)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(_select, strategy, path).result()


def _write_clusters(path: Path, items: int, rng: np.random.Generator) -> np.ndarray:
    """(items,) classes; a class is ten clusters."""
    centers = rng.standard_normal((_CLUSTERS, DIMENSIONS), np.float32) * 0.5
    cluster = rng.integers(_CLUSTERS, size=items)
    file = np.lib.format.open_memmap(path, "w+", np.float16, (items, DIMENSIONS))
    for start in range(0, items, _ROWS):
        part = cluster[start : start + _ROWS]
        file[start : start + _ROWS] = centers[part] + rng.standard_normal((len(part), DIMENSIONS), np.float32)
    file.flush()
    return cluster % CLASSES


def _select(strategy: str, path: Path) -> Cost:
    embeddings, classes = np.load(path, mmap_mode="r"), np.load(path.with_name("classes.npy"))
    slowest = 0.0
    for labels in _LABELS:
        rng = np.random.default_rng(labels)
        known = np.sort(rng.choice(len(classes), labels, replace=False))
        labeled = np.full(len(classes), -1)
        labeled[known] = classes[known]
        head = LinearHead().fit(embeddings[known], classes[known], CLASSES, rng)
        pool = PoolView(
            embeddings=embeddings,
            pretext_losses=rng.gamma(2, 0.5, len(classes)).astype(np.float32),
            available=labeled < 0,
            classes=labeled,
            probabilities=head.probabilities(embeddings),
            n_classes=CLASSES,
            round_size=_PICKS,
            labels_used=labels,
        )
        begun = time.perf_counter()
        make_strategy(strategy).select(pool, _PICKS, rng)
        slowest = max(slowest, time.perf_counter() - begun)
    return Cost(slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)

"""The picks of each run, beside the embeddings: a judge that comes later needs no new run."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from benchmarks.labels.records import RunKey
from worker.arrays import Ints


class Picks:
    """Arrays (m,) of rows of the drawn pool in the order in which they were picked, by run and budgets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, key: RunKey, budgets: Sequence[int]) -> bool:
        return self._path(key, budgets).exists()

    def get(self, key: RunKey, budgets: Sequence[int]) -> Ints:
        found: Ints = np.load(self._path(key, budgets))
        return found

    def put(self, key: RunKey, budgets: Sequence[int], picks: Ints) -> None:
        path = self._path(key, budgets)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, picks)

    def _path(self, key: RunKey, budgets: Sequence[int]) -> Path:
        """Whatever the judge."""
        text = repr((key._replace(judge=""), tuple(budgets)))
        return self._folder / f"{blake2b(text.encode(), digest_size=8).hexdigest()}.npy"

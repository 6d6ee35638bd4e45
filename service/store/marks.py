"""The marks of a score run: of each text the characters of the tokens that its pretext model found hardest.

The worker writes them (job score_pool) where pretext losses are of tokens, the service maps them into memory. Beside
the arrays of the score run stand, `n` being its items, in the order of <artifact>/ids.npy,

    <artifact>/marks.npy    (n, k, 2) int32: first character and the one after the last, of the hardest token first;
                            -1 where fewer are marked
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.store.artifacts import Artifacts

Spans = npt.NDArray[np.int32]

_OPEN = 16  # score runs whose marks stay mapped


def _open(artifacts: Artifacts, artifact: str) -> Spans | None:
    """(n, k, 2), mapped; None where there are none."""
    try:
        return np.asarray(np.load(artifacts.local_path(_name(artifact)), mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        return None


def store_marks(artifacts: Artifacts, artifact: str, parts: Iterable[Spans]) -> None:
    """Parts (m, k, 2) of all items, in their order."""
    with artifacts.writing(_name(artifact)) as file:
        np.save(file, np.concatenate(list(parts)), allow_pickle=False)


def _name(artifact: str) -> str:
    return f"{artifact}/marks.npy"


class Marks:
    """The marks of served score runs; `of` answers within microseconds, as arrays stay mapped."""

    def __init__(self, artifacts: Artifacts) -> None:
        @lru_cache(maxsize=_OPEN)
        def opened(artifact: str) -> tuple[npt.NDArray[np.int64], Spans] | None:
            marks = _open(artifacts, artifact)
            if marks is None:
                return None
            ids = np.load(artifacts.local_path(f"{artifact}/ids.npy"), mmap_mode="r", allow_pickle=False)
            return np.asarray(ids), marks

        self._opened = opened

    def of(self, artifact: str | None, item_id: int) -> list[tuple[int, int]]:
        """Ranges of characters, in the order of the text; none where the score run has none of the item.
        artifact: of the score run
        """
        found = self._opened(artifact) if artifact is not None else None
        if found is None:
            return []
        ids, marks = found
        row = int(np.searchsorted(ids, item_id))
        if row == len(ids) or ids[row] != item_id:
            return []
        return sorted((start, end) for start, end in marks[row].tolist() if start >= 0)

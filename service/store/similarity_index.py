"""The similarity index of a score run: the places of its items, so that the service finds what is near an item.

The worker writes it (job index_items), the service maps it into memory and needs nothing but numpy. Beside the arrays
of the score run stand, `n` being its items and `c` the cells that they are grouped in:

    <artifact>/similar/places.npy   (n, k) float16, of length 1, cell after cell
    <artifact>/similar/items.npy    (n,) int64, the item of each place
    <artifact>/similar/rows.npy     (n,) int64, the place of each item of <artifact>/ids.npy
    <artifact>/similar/centers.npy  (c, k) float32
    <artifact>/similar/starts.npy   (c + 1,) int64, the first place of each cell; written last

Up to 100,000 items there is one cell and the search is exact; above, only the cells nearest to the examples are read
(an inverted file, Jégou et al. 2011, https://hal.science/inria-00514462).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.store.artifacts import Artifacts

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

EXACT = 100_000  # items that are all compared
_CELLS = 32  # of about 1,000 that are read at first; shared by the positive examples, each has two at least
_WIDENED = 8  # times as many cells and items, where what was found does not suffice
_ROWS = 16_384  # places turned to float32 at a time, few enough to stay in the cache


def folder_of(artifact: str) -> str:
    """The folder of a score run's index, by the name of the run's arrays."""
    return f"{artifact}/similar"


def is_there(artifacts: Artifacts, artifact: str) -> bool:
    return artifacts.exists(f"{folder_of(artifact)}/starts.npy")


@dataclass(frozen=True)
class Similar:
    """Items (m,) and their similarity (m,) float32, most similar first. complete: there are no more."""

    items: Ints
    similarities: Floats
    complete: bool


@dataclass(frozen=True)
class SimilarityIndex:
    """The arrays, mapped; `ids` (n,) ascending."""

    ids: Ints
    rows: Ints
    items: Ints
    places: npt.NDArray[np.float16]
    centers: Floats
    starts: Ints

    @staticmethod
    def open(artifacts: Artifacts, artifact: str) -> "SimilarityIndex":
        """Raises `FileNotFoundError` where there is none, or none any more."""

        def mapped(name: str) -> npt.NDArray[np.generic]:
            return np.asarray(np.load(artifacts.local_path(name), mmap_mode="r", allow_pickle=False))

        arrays = {
            name: mapped(f"{folder_of(artifact)}/{name}.npy")
            for name in ("rows", "items", "places", "centers", "starts")
        }
        return SimilarityIndex(ids=mapped(f"{artifact}/ids.npy"), **arrays)  # type: ignore[arg-type]

    def rows_of(self, items: Ints) -> Ints:
        """(m,) -> (m,) rows of `places`, -1 for an item that is not in the index."""
        if not len(self.ids):
            return np.full(len(items), -1)
        found = np.minimum(np.searchsorted(self.ids, items), len(self.ids) - 1)
        return np.where(self.ids[found] == items, self.rows[found], -1)

    def search(self, positive: Ints, negative: Ints, n: int) -> Iterator[Similar]:
        """The n items most like the examples; then, as long as the caller asks, more of them, from the first on.

        positive, negative: (p,) and (q,) rows of `places`, p at least 1. An item's similarity is its cosine with the
        positive example nearest to it, 1 at most. Left out are the examples, and what is nearer to a negative one.
        """
        good, bad = (self.places[rows].astype(np.float32) for rows in (positive, negative))
        examples = np.concatenate([positive, negative])
        to_centers = np.einsum("ck,ck->c", self.centers, self.centers) - 2 * good @ self.centers.T
        cells = max(2, _CELLS // len(good))
        while True:
            cells = min(cells, len(self.centers))
            read = np.unique(np.argpartition(to_centers, cells - 1, axis=1)[:, :cells])
            rows, similarities = self._compared(read, good, bad)
            left = np.isfinite(similarities) & ~np.isin(rows, examples)
            rows, similarities = rows[left], similarities[left]
            complete = cells == len(self.centers) and n >= len(rows)
            if n < len(rows):
                best = np.argpartition(-similarities, n - 1)[:n]
                rows, similarities = rows[best], similarities[best]
            order = np.lexsort((self.items[rows], -similarities))
            yield Similar(self.items[rows[order]], similarities[order], complete)
            if complete:
                return
            cells, n = cells * _WIDENED, n * _WIDENED

    def _compared(self, cells: Ints, good: Floats, bad: Floats) -> tuple[Ints, Floats]:
        """The rows (m,) of the cells, and their similarity (m,), -inf where a negative example is nearer."""
        rows = np.concatenate([np.arange(self.starts[cell], self.starts[cell + 1]) for cell in cells])
        similarities = np.empty(len(rows), np.float32)
        to_good, to_bad = np.ascontiguousarray(good.T), np.ascontiguousarray(bad.T)
        done = 0
        for cell in cells:
            first, end = int(self.starts[cell]), int(self.starts[cell + 1])
            for start in range(first, end, _ROWS):
                places = self.places[start : min(start + _ROWS, end)].astype(np.float32)
                nearest = (places @ to_good).max(axis=1)
                if len(bad):
                    nearest[(places @ to_bad).max(axis=1) > nearest] = -np.inf
                similarities[done : done + len(places)] = np.minimum(nearest, 1)
                done += len(places)
        return rows, similarities

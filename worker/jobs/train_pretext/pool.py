"""The pool as a pretraining sees it: which items, how large, a sample of them, and all of them as a dataset.

Out of fold, the pool is two halves, by the item's place in the random order it got when it was registered.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import torch
from torch import Tensor

from service.errors import ArtifactNotStored
from service.store.tables import Item
from worker.arrays import Floats, Ints
from worker.jobs.context import JobContext, JobFailed
from worker.pool.cache_room import PoolPixels
from worker.pool.cached_reader import ids_of
from worker.pool.dataset import Dataset
from worker.pool.reader import ItemPixels
from worker.pool.shared import BLOCK, MappedPool, SharedPool

_TRAINABLE = ("available", "done", "broken")  # with what is labeled: a resumed training sees the same
_SAMPLE = 2_048
_SAMPLE_BYTES = 2**29  # as float32; larger images make a smaller sample
_SIDES_SAMPLED = 512
_SIDES_DECODED = 64
_READ_AT_A_TIME = 1_024


def half_of(shuffle: int) -> int:
    """0 or 1: the half that an item belongs to, by `Item.shuffle`. It never changes, and is random."""
    return shuffle % 2


@dataclass(frozen=True)
class TrainingPool:
    """Items up to the last id, so that a resumed training sees those it saw before."""

    context: JobContext
    item_pixels: ItemPixels
    seed: int
    last_item_id: int | None = None
    half: int | None = None

    def ids(self) -> Ints:
        """Ascending."""
        which = [
            Item.project_id == self.context.job.project_id, Item.split == "pool", Item.state.in_(_TRAINABLE)
        ]  # fmt: skip
        if self.last_item_id is not None:
            which.append(Item.id <= self.last_item_id)
        if self.half is not None:
            which.append(Item.shuffle % 2 == self.half)  # as `half_of`
        with self.context.read() as session:
            rows = session.scalars(sa.select(Item.id).where(*which).order_by(Item.id))
            return np.fromiter(rows.yield_per(10_000), np.int64)

    def median_side(self) -> float:
        """Of the short sides in a sample. What was registered without sizes is decoded. Raises `JobFailed`."""
        items = self._items(np.sort(self._some(_SIDES_SAMPLED)))
        sides = [min(item.width, item.height) for item in items if item.width and item.height]
        if not sides:
            decoded = self.item_pixels.decode([item.uri for item in items[:_SIDES_DECODED]], image_size=8)
            sides = [min(one.width, one.height) for one in decoded if one.width and one.height]
        if not sides:
            raise JobFailed(f"No item of the pool can be read. The first says: {decoded[0].reason}")
        return float(np.median(sides))

    def sample(self, side: int, most: int = _SAMPLE) -> tuple[Tensor, dict[str, Floats]]:
        """Random items: (m, 3, s, s) uint8, and what is trivial about each, (m,). Raises `JobFailed`."""
        items = self._items(self._some(min(most, max(1, _SAMPLE_BYTES // (4 * 3 * side * side)))))
        decoded = self.item_pixels.decode([item.uri for item in items], side)
        readable = [(one.pixels, one.file_size) for one in decoded if one.pixels is not None]
        if not readable:
            raise JobFailed(
                "No item of the pool can be read. Check the items' addresses, then try again. The first says: "
                f"{decoded[0].reason if decoded else 'it is gone'}"
            )
        sample = torch.stack([pixels for pixels, _ in readable])
        values = sample.flatten(1).float()
        return sample, {
            "pixel_variance": values.var(1, correction=0).numpy(),
            "brightness": values.mean(1).numpy(),
            "file_size": np.array([file_size for _, file_size in readable], np.float32),
        }

    def dataset(self, side: int, report: Callable[[float, str], None]) -> Dataset:
        """In memory if it fits, else in a map on the disk; what that has no room for is read again in each epoch."""
        ids = self.ids()
        if not self._fits(len(ids), side):
            mapped = self._map(ids, side, report)
            return Dataset(len(ids), lambda rows: mapped.stack(self._items(ids[rows])), BLOCK)
        pixels = torch.empty((len(ids), 3, side, side), dtype=torch.uint8)
        filled = 0
        for part in self._decoded(ids, side, report):
            pixels[filled : filled + len(part)] = part
            filled += len(part)
        return Dataset(filled, lambda rows: pixels[torch.from_numpy(rows)])

    def shared(self, side: int, report: Callable[[float, str], None], file: IO[bytes]) -> SharedPool:
        """The same for several trainers; what fits into memory is written to the file. Raises `ArtifactNotStored` when
        there is no room for it.
        """
        ids = self.ids()
        if not self._fits(len(ids), side):
            mapped = self._map(ids, side, report)
            known, uris = list[Ints](), list[pa.Array]()
            for start in range(0, len(ids), _READ_AT_A_TIME):
                items = self._items(ids[start : start + _READ_AT_A_TIME])
                known.append(ids_of(items))
                uris.append(pa.array([item.uri for item in items], pa.large_string()))
            pool = MappedPool(mapped.map, np.concatenate(known), pa.concat_arrays(uris))
            return SharedPool(len(pool.ids), side, pool)
        filled = 0
        for pixels in self._decoded(ids, side, report):
            try:
                file.write(pixels.numpy().tobytes())
                file.flush()
            except OSError as error:
                reason = str(error.strerror).lower()
                raise ArtifactNotStored(name="pixels for the trainers", reason=reason) from error
            filled += len(pixels)
        return SharedPool(filled, side)

    def _map(self, ids: Ints, side: int, report: Callable[[float, str], None]) -> PoolPixels:
        mapped = PoolPixels(self.context, self.item_pixels, side)
        mapped.fill(ids, self._items, report)
        return mapped

    def _fits(self, items: int, side: int) -> bool:
        return 3 * side * side * items <= self.context.settings.memory_cache_bytes

    def _decoded(self, ids: Ints, side: int, report: Callable[[float, str], None]) -> Iterator[Tensor]:
        """All that can be read, (m, 3, s, s) uint8 at a time."""
        for start in range(0, len(ids), _READ_AT_A_TIME):
            yield self._read(ids[start : start + _READ_AT_A_TIME], side)
            report(start / len(ids), f"reading images, {start:,} of {len(ids):,}")

    def _read(self, ids: Ints, side: int) -> Tensor:
        return self.item_pixels.stack([item.uri for item in self._items(ids)], side)

    def _some(self, count: int) -> Ints:
        return np.random.default_rng(self.seed).permutation(self.ids())[:count]

    def _items(self, ids: Ints) -> list[sa.Row[int, str, int | None, int | None]]:
        """(id, uri, width, height) in the order of the ids."""
        with self.context.read() as session:
            query = sa.select(Item.id, Item.uri, Item.width, Item.height).where(Item.id.in_(ids.tolist()))
            rows = {row.id: row for row in session.execute(query)}
        return [rows[item_id] for item_id in ids.tolist() if item_id in rows]

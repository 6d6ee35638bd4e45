"""The pool as a pretraining sees it: which items, facts about them, a sample, and all of them as a dataset.

Out of fold, the pool is two halves, by the item's place in the random order it got when it was registered.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import torch
from torch import Tensor

from service.content.contract import Facts
from service.errors import ArtifactNotStored
from service.store.tables import Item
from worker.arrays import Floats, Ints
from worker.errors import JobFailed
from worker.jobs.context import JobContext
from worker.jobs.specs import cache_names, item_refs
from worker.modalities import Modality
from worker.pool.cache_room import PoolCache
from worker.pool.dataset import Dataset
from worker.pool.decoded_cache import item_bytes
from worker.pool.items import ItemRef, ids_of
from worker.pool.reader import ItemReader, stacked
from worker.pool.shared import BLOCK, CachedPool, SharedPool

_TRAINABLE = ("available", "done", "broken")  # with what is labeled: a resumed training sees the same
_SAMPLE = 2_048
_SAMPLE_BYTES = 2**29  # as float32; larger images make a smaller sample
_FACTS_SAMPLED = 512
_FACTS_DECODED = 64
_READ_AT_A_TIME = 1_024


@dataclass(frozen=True)
class TrainingPool:
    """Items up to the last id, so that a resumed training sees those it saw before."""

    context: JobContext
    reader: ItemReader
    seed: int
    last_item_id: int | None = None
    half: int | None = None

    def ids(self) -> Ints:
        """Ascending."""
        which = [
            Item.project_id == self.context.job.project_id,
            Item.split == "pool",
            Item.state.in_(_TRAINABLE),
        ]
        if self.last_item_id is not None:
            which.append(Item.id <= self.last_item_id)
        if self.half is not None:
            which.append(Item.shuffle % 2 == self.half)  # as `half_of`
        with self.context.read() as session:
            rows = session.scalars(sa.select(Item.id).where(*which).order_by(Item.id))
            return np.fromiter(rows.yield_per(10_000), np.int64)

    def facts(self, modality: Modality, device: torch.device) -> list[Facts]:
        """About a sample of the items. Those that were registered without any are decoded. Raises `JobFailed`."""
        ids = np.sort(self._some(_FACTS_SAMPLED))
        with self.context.read() as session:
            rows = session.scalars(sa.select(Item.facts).where(Item.id.in_(ids.tolist())))
            known = [facts for facts in rows if facts]
        if known:
            return known
        items = self._items(ids)[:_FACTS_DECODED]
        decoded = self.reader.decode_items(items, modality.resolved([], device))
        found = [one.facts for one in decoded if one.facts is not None]
        if not found:
            raise JobFailed(f"No item of the pool can be read. The first says: {decoded[0].reason}")
        return found

    def sample(self, modality: Modality, most: int = _SAMPLE) -> tuple[Tensor, dict[str, Floats]]:
        """Random items: (m, *item_shape), and what is trivial about each, (m,). Raises `JobFailed`."""
        items = self._items(
            self._some(min(most, max(1, _SAMPLE_BYTES // (4 * math.prod(modality.item_shape)))))
        )
        decoded = self.reader.decode_items(items, modality)
        readable = [(one.item, one.size or 0) for one in decoded if one.item is not None]
        if not readable:
            raise JobFailed(
                "No item of the pool can be read. Check the items' addresses, then try again. The first says: "
                f"{decoded[0].reason if decoded else 'it is gone'}"
            )
        sample = stacked([item for item, _ in readable], modality)
        return sample, modality.traits(sample, np.array([size for _, size in readable], np.int64))

    def dataset(self, modality: Modality, report: Callable[[float, str], None]) -> Dataset:
        """In memory if it fits, else in a cache on the disk; what that has no room for is read again in each epoch."""
        ids = self.ids()
        if not self._fits(len(ids), modality):
            cache = self._cache(ids, modality, report)
            return Dataset(len(ids), lambda rows: cache.stack(self._items(ids[rows])), BLOCK)
        items = torch.empty((len(ids), *modality.item_shape), dtype=modality.dtype)
        filled = 0
        for part in self._decoded(ids, modality, report):
            items[filled : filled + len(part)] = part
            filled += len(part)
        return Dataset(filled, lambda rows: items[torch.from_numpy(rows)])

    def shared(self, modality: Modality, report: Callable[[float, str], None], file: IO[bytes]) -> SharedPool:
        """The same for several trainers; what fits into memory is written to the file. Raises `ArtifactNotStored` when
        there is no room for it.
        """
        ids = self.ids()
        if not self._fits(len(ids), modality):
            cache = self._cache(ids, modality, report)
            known, uris = list[Ints](), list[pa.Array]()
            for start in range(0, len(ids), _READ_AT_A_TIME):
                items = self._items(ids[start : start + _READ_AT_A_TIME])
                known.append(ids_of(items))
                uris.append(pa.array([item.uri for item in items], pa.large_string()))
            pool = CachedPool(cache.cache, np.concatenate(known), pa.concat_arrays(uris))
            return SharedPool(len(pool.ids), modality, pool)
        filled = 0
        for part in self._decoded(ids, modality, report):
            try:
                file.write(part.numpy().tobytes())
                file.flush()
            except OSError as error:
                reason = str(error.strerror).lower()
                raise ArtifactNotStored(name="decoded items for the trainers", reason=reason) from error
            filled += len(part)
        return SharedPool(filled, modality)

    def _cache(self, ids: Ints, modality: Modality, report: Callable[[float, str], None]) -> PoolCache:
        cache = PoolCache(self.context.settings, cache_names(self.context), self.reader, modality)
        cache.fill(ids, self._items, report)
        return cache

    def _fits(self, items: int, modality: Modality) -> bool:
        return item_bytes(modality) * items <= self.context.settings.memory_cache_bytes

    def _decoded(
        self, ids: Ints, modality: Modality, report: Callable[[float, str], None]
    ) -> Iterator[Tensor]:
        """All that can be read, (m, *item_shape) at a time."""
        for start in range(0, len(ids), _READ_AT_A_TIME):
            items = self._items(ids[start : start + _READ_AT_A_TIME])
            yield self.reader.stack([item.uri for item in items], modality)
            report(start / len(ids), f"reading items, {start:,} of {len(ids):,}")

    def _some(self, count: int) -> Ints:
        return np.random.default_rng(self.seed).permutation(self.ids())[:count]

    def _items(self, ids: Ints) -> list[ItemRef]:
        """In the order of the ids."""
        with self.context.read() as session:
            return item_refs(session, ids)

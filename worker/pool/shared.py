"""The pool as the trainers of one machine share it: decoded once, into one file or into the cache on the disk."""

from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from worker.arrays import Ints
from worker.modalities import Modality
from worker.pool.cached_reader import CachedReader
from worker.pool.dataset import Dataset
from worker.pool.decoded_cache import DecodedCache
from worker.pool.items import ItemRef
from worker.pool.reader import ItemReader

BLOCK = 256  # rows that lie together; see `worker.pool.dataset.Dataset`


@dataclass(frozen=True)
class CachedPool:
    """A pool too large for memory: ids (n,) and the uris (n,) of its items, and the cache that has them as far as
    there was room. The uris are one Arrow array; a million Python objects would take a few times the memory.
    """

    cache: DecodedCache
    ids: Ints
    uris: pa.Array


@dataclass(frozen=True)
class SharedPool:
    """The description of a shared pool that a trainer gets, beside the file."""

    size: int
    modality: Modality
    cached: CachedPool | None = None

    def dataset(self, file: IO[bytes], reader: ItemReader) -> Dataset:
        """`file` holds `size` decoded items, which are in memory once for all, or nothing."""
        if self.cached is not None:
            return _cached(self.cached, reader)
        shape, dtype = (self.size, *self.modality.item_shape), self.modality.dtype
        numpy = torch.empty(0, dtype=dtype).numpy().dtype
        items = torch.from_numpy(np.memmap(file, numpy, "c", shape=shape))  # torch may write to its own
        return Dataset(self.size, lambda rows: items[torch.from_numpy(rows)])


def _cached(pool: CachedPool, reader: ItemReader) -> Dataset:
    cached = CachedReader(pool.cache, reader)

    def load(rows: Ints) -> Tensor:
        uris = pool.uris.take(pa.array(rows)).to_pylist()
        return cached.stack([ItemRef(*item) for item in zip(pool.ids[rows].tolist(), uris, strict=True)])

    return Dataset(len(pool.ids), load, BLOCK)

"""Items from the cache on this worker's disk where they are in it, else decoded."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.pool.decoded_cache import DecodedCache, Origins, origin
from worker.pool.items import ItemRef, ids_of
from worker.pool.reader import ItemReader


class CachedReader:
    def __init__(self, cache: DecodedCache, reader: ItemReader) -> None:
        self.cache, self._reader = cache, reader

    def stack(self, items: Sequence[ItemRef]) -> Tensor:
        """(m, *item_shape) in their order, less those that cannot be read."""
        found, known = self.cache.read(ids_of(items), origins_of(items))
        if found.all():
            return known
        others = np.flatnonzero(~found)
        decoded = self._reader.decode_items([items[row] for row in others.tolist()], self.cache.modality)
        readable = found.copy()
        stacked = torch.empty((len(items), *known.shape[1:]), dtype=known.dtype)
        stacked[torch.from_numpy(found)] = known
        for row, one in zip(others.tolist(), decoded, strict=True):
            if one.item is not None:
                stacked[row], readable[row] = one.item, True
        return stacked if readable.all() else stacked[torch.from_numpy(readable)]

    def known(self, items: Sequence[ItemRef]) -> dict[int, Tensor]:
        """By row of the items (n,): those that are in the cache, decoded (*item_shape)."""
        found, known = self.cache.read(ids_of(items), origins_of(items))
        return dict(zip(np.flatnonzero(found).tolist(), known, strict=True))


def origins_of(items: Sequence[ItemRef]) -> Origins:
    return np.array([origin(item.uri) for item in items], np.uint64)

"""Items as pixels: from a map on this worker's disk where they are in it, else decoded."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worker.arrays import Ints
from worker.pool.decoded_cache import Origins, PixelMap, origin
from worker.pool.reader import ItemPixels


class ItemRow(Protocol):
    @property
    def id(self) -> int: ...

    @property
    def uri(self) -> str: ...


class MappedPixels:
    def __init__(self, pixel_map: PixelMap, item_pixels: ItemPixels) -> None:
        self.map, self._item_pixels = pixel_map, item_pixels

    def stack(self, items: Sequence[ItemRow]) -> Tensor:
        """(m, 3, s, s) uint8 in their order, less those that cannot be read."""
        found, known = self.map.read(ids_of(items), origins_of(items))
        if found.all():
            return known
        others = np.flatnonzero(~found)
        decoded = self._item_pixels.decode([items[row].uri for row in others.tolist()], self.map.side)
        readable = found.copy()
        pixels = torch.empty((len(items), *known.shape[1:]), dtype=torch.uint8)
        pixels[torch.from_numpy(found)] = known
        for row, one in zip(others.tolist(), decoded, strict=True):
            if one.pixels is not None:
                pixels[row], readable[row] = one.pixels, True
        return pixels if readable.all() else pixels[torch.from_numpy(readable)]

    def known(self, items: Sequence[ItemRow]) -> dict[int, Tensor]:
        """By row of the items (n,): the pixels (3, s, s) of those that are in the map."""
        found, pixels = self.map.read(ids_of(items), origins_of(items))
        return dict(zip(np.flatnonzero(found).tolist(), pixels, strict=True))


def ids_of(items: Sequence[ItemRow]) -> Ints:
    return np.array([item.id for item in items], np.int64)


def origins_of(items: Sequence[ItemRow]) -> Origins:
    return np.array([origin(item.uri) for item in items], np.uint64)

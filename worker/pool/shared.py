"""The pool as the trainers of one machine share it: decoded once, into one file or into the map on the disk."""

from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from worker.arrays import Ints
from worker.pool.cached_reader import MappedPixels
from worker.pool.dataset import Dataset
from worker.pool.decoded_cache import PixelMap
from worker.pool.reader import ItemPixels

BLOCK = 256  # rows that lie together; see `worker.pool.dataset.Dataset`


class _Item(NamedTuple):
    id: int
    uri: str


@dataclass(frozen=True)
class MappedPool:
    """A pool too large for memory: ids (n,) and the addresses (n,) of its items, and the map that has their pixels as
    far as there was room. The addresses are one Arrow array; a million Python objects would take a few times the
    memory.
    """

    map: PixelMap
    ids: Ints
    uris: pa.Array


@dataclass(frozen=True)
class SharedPool:
    """What a trainer is told of it, beside the file."""

    size: int
    side: int
    mapped: MappedPool | None = None

    def dataset(self, file: IO[bytes], item_pixels: ItemPixels) -> Dataset:
        """`file` holds size x 3 x side x side bytes, which are in memory once for all, or nothing."""
        if self.mapped is not None:
            return _mapped(self.mapped, item_pixels)
        shape = (self.size, 3, self.side, self.side)
        pixels = torch.from_numpy(np.memmap(file, np.uint8, "c", shape=shape))  # torch may write to its own
        return Dataset(self.size, lambda rows: pixels[torch.from_numpy(rows)])


def _mapped(pool: MappedPool, item_pixels: ItemPixels) -> Dataset:
    pixels = MappedPixels(pool.map, item_pixels)

    def load(rows: Ints) -> Tensor:
        uris = pool.uris.take(pa.array(rows)).to_pylist()
        return pixels.stack([_Item(*item) for item in zip(pool.ids[rows].tolist(), uris, strict=True)])

    return Dataset(len(pool.ids), load, BLOCK)

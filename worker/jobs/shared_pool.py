"""The pool as the trainers of one machine share it: decoded once into one file, or as the items' addresses."""

from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from worker.dataset import Dataset
from worker.jobs.item_pixels import ItemPixels
from worker.pool_view import Ints

BLOCK = 256  # rows that lie together; see `worker.dataset.Dataset`


@dataclass(frozen=True)
class SharedPool:
    """What a trainer is told of it, beside the file. `uris`: where the pool is too large for memory, the address of
    each item, in one Arrow array; a million of them as Python objects would take a few times the memory.
    """

    size: int
    side: int
    uris: pa.Array | None = None

    def dataset(self, file: IO[bytes], item_pixels: ItemPixels) -> Dataset:
        """`file` holds size x 3 x side x side bytes, which are in memory once for all, or nothing."""
        uris = self.uris
        if uris is not None:

            def read(rows: Ints) -> Tensor:
                return item_pixels.stack(uris.take(pa.array(rows)).to_pylist(), self.side)

            return Dataset(self.size, read, BLOCK)
        shape = (self.size, 3, self.side, self.side)
        pixels = torch.from_numpy(np.memmap(file, np.uint8, "c", shape=shape))  # torch may write to its own
        return Dataset(self.size, lambda rows: pixels[torch.from_numpy(rows)])

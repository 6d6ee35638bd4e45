"""Decoded items on the disk, for pools that do not fit into memory: each item is decoded once, not in every epoch.

A folder of files, each of a range of item ids. A file is written whole and then named, and never changes. Reading
maps one file after the other and lets it go: the system keeps in its cache what it has room for, and this process
holds no more than the rows it asked for.

    <range>.items   uint64 (r,): what an item was decoded from, 0 where there is none
                    (r, *item_shape): the item; where there is none, the file has a hole and takes no room
"""

import math
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.arrays import Bools, Ints
from worker.modalities import Modality

Origins = npt.NDArray[np.uint64]

_FILE_BYTES = 2**25  # and so much is in memory at a time while a file is made
_FILE_ITEMS = 2**13  # of tiny images too: as many are asked for at a time


def origin(uri: str) -> int:
    """A hash above 0 of the URI that an item is decoded from: an item that has moved is decoded anew."""
    return int.from_bytes(blake2b(uri.encode(errors="surrogatepass"), digest_size=8).digest()) or 1


@dataclass(frozen=True)
class DecodedCache:
    """Items as the modality decodes them, below `folder`."""

    folder: Path
    modality: Modality

    @property
    def range_size(self) -> int:
        """Ids a file covers: a power of two."""
        return 1 << max(0, min(_FILE_BYTES // self._item_bytes, _FILE_ITEMS).bit_length() - 1)

    @property
    def _item_bytes(self) -> int:
        return item_bytes(self.modality)

    def by_range(self, ids: Ints) -> Iterator[tuple[int, Ints]]:
        """The number of each range that has some of the ids (n,), and the rows of these."""
        numbers = ids // self.range_size
        order = np.argsort(numbers, kind="stable")
        found, starts = np.unique(numbers[order], return_index=True)
        yield from zip(found.tolist(), np.split(order, starts)[1:], strict=True)

    def has(self, number: int, ids: Ints, origins: Origins) -> Bools:
        """(n,) Mask of these items, all of one range, that are in the cache."""
        opened = self._open(number)
        if opened is None:
            return np.zeros(len(ids), np.bool_)
        return np.asarray(opened[0][ids % self.range_size] == origins)

    def read(self, ids: Ints, origins: Origins) -> tuple[Bools, Tensor]:
        """A mask (n,) of the items that are in the cache, and these as decoded, (m, *item_shape)."""
        found = np.zeros(len(ids), np.bool_)
        items = torch.empty((len(ids), *self.modality.item_shape), dtype=self.modality.dtype)
        for number, rows in self.by_range(ids):
            opened = self._open(number)
            if opened is None:
                continue
            known, mapped = opened
            there = rows[known[ids[rows] % self.range_size] == origins[rows]]
            items[torch.from_numpy(there)] = torch.from_numpy(mapped[ids[there] % self.range_size])
            found[there] = True
        return found, items if found.all() else items[torch.from_numpy(found)]

    def write(self, number: int, ids: Ints, origins: Origins, items: Tensor) -> None:
        """Add items of one range to its file. Raises `OSError` when there is no room."""
        slots = ids % self.range_size
        opened = self._open(number)
        known, before = opened if opened is not None else (np.zeros(self.range_size, np.uint64), None)
        known[slots] = origins
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{number}.{uuid.uuid4().hex}.tmp"
        try:
            with unfinished.open("wb") as file:
                file.write(known.tobytes())
                file.truncate(known.nbytes + self.range_size * self._item_bytes)
                new = dict(zip(slots.tolist(), items.numpy(), strict=True))
                for slot in np.flatnonzero(known).tolist():
                    made = new.get(slot)
                    if made is None and before is not None:
                        made = before[slot]
                    assert made is not None
                    file.seek(known.nbytes + slot * self._item_bytes)
                    file.write(made.tobytes())
            unfinished.rename(self._path(number))
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def _open(self, number: int) -> tuple[Origins, npt.NDArray[Any]] | None:
        """(r,) and (r, *item_shape), both of the same file, also when it is replaced or removed meanwhile; None where
        there is none.
        """
        shape = (self.range_size, *self.modality.item_shape)
        try:
            with self._path(number).open("rb") as file:
                origins = np.fromfile(file, np.uint64, self.range_size)
                return origins, np.memmap(
                    file, _numpy(self.modality.dtype), "r", offset=origins.nbytes, shape=shape
                )
        except FileNotFoundError:
            return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.items"


def item_bytes(modality: Modality) -> int:
    """The bytes that one decoded item takes."""
    return math.prod(modality.item_shape) * modality.dtype.itemsize


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype


def bytes_below(folder: Path) -> int:
    """The bytes that the folder's files take on the disk, without their holes."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:  # somebody made room
                continue
    return total

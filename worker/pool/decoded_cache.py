"""Decoded pixels on the disk, for pools that do not fit into memory: each item is decoded once, not in every epoch.

A folder of files, each of a range of item ids. A file is written whole and then named, and never changes. Reading
maps one file after the other and lets it go: the system keeps in its cache what it has room for, and this process
holds no more than the rows it asked for.

    <range>.u8      uint64 (r,): what an item's pixels were made of, 0 where there are none
                    uint8 (r, 3, s, s): its pixels; where there are none, the file has a hole and takes no room
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.arrays import Bools, Ints

Origins = npt.NDArray[np.uint64]

_FILE_BYTES = 2**25  # and so much is in memory at a time while a file is made
_FILE_ITEMS = 2**13  # of tiny images too: as many are asked for at a time


def origin(uri: str) -> int:
    """What an item is made of, as a number above 0: of an item that has moved, the pixels are made anew."""
    return int.from_bytes(blake2b(uri.encode(errors="surrogatepass"), digest_size=8).digest()) or 1


@dataclass(frozen=True)
class PixelMap:
    """Pixels of side `side`, below `folder`."""

    folder: Path
    side: int

    @property
    def range_size(self) -> int:
        """Ids a file covers: a power of two."""
        return 1 << max(0, min(_FILE_BYTES // self._item_bytes, _FILE_ITEMS).bit_length() - 1)

    @property
    def _item_bytes(self) -> int:
        return 3 * self.side * self.side

    def by_range(self, ids: Ints) -> Iterator[tuple[int, Ints]]:
        """The number of each range that has some of the ids (n,), and the rows of these."""
        numbers = ids // self.range_size
        order = np.argsort(numbers, kind="stable")
        found, starts = np.unique(numbers[order], return_index=True)
        yield from zip(found.tolist(), np.split(order, starts)[1:], strict=True)

    def has(self, number: int, ids: Ints, origins: Origins) -> Bools:
        """(n,) which of these items, all of one range, are in the map."""
        opened = self._open(number)
        if opened is None:
            return np.zeros(len(ids), np.bool_)
        return np.asarray(opened[0][ids % self.range_size] == origins)

    def read(self, ids: Ints, origins: Origins) -> tuple[Bools, Tensor]:
        """Of the items (n,), which are in the map, and the pixels of these, (m, 3, s, s) uint8."""
        found = np.zeros(len(ids), np.bool_)
        pixels = torch.empty((len(ids), 3, self.side, self.side), dtype=torch.uint8)
        for number, rows in self.by_range(ids):
            opened = self._open(number)
            if opened is None:
                continue
            known, mapped = opened
            there = rows[known[ids[rows] % self.range_size] == origins[rows]]
            pixels[torch.from_numpy(there)] = torch.from_numpy(mapped[ids[there] % self.range_size])
            found[there] = True
        return found, pixels if found.all() else pixels[torch.from_numpy(found)]

    def write(self, number: int, ids: Ints, origins: Origins, pixels: Tensor) -> None:
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
                new = dict(zip(slots.tolist(), pixels.numpy(), strict=True))
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

    def _open(self, number: int) -> tuple[Origins, npt.NDArray[np.uint8]] | None:
        """(r,) and (r, 3, s, s), both of the same file, also when it is replaced or removed meanwhile; None where there
        is none.
        """
        shape = (self.range_size, 3, self.side, self.side)
        try:
            with self._path(number).open("rb") as file:
                origins = np.fromfile(file, np.uint64, self.range_size)
                return origins, np.memmap(file, np.uint8, "r", offset=origins.nbytes, shape=shape)
        except FileNotFoundError:
            return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.u8"


def bytes_below(folder: Path) -> int:
    """That its files take on the disk, without their holes."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:  # somebody made room
                continue
    return total

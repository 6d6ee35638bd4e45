"""A project's items as pixels: from a map on this worker's disk where they are in it, else decoded.

The map is filled by a training whose pool does not fit into memory, and used by its epochs, by the scoring after it
and by the next jobs. Nothing depends on it: whoever needs room may remove a map at any time.

    <data_dir>/pixels/<project>/<side>/<range>.u8    see `worker.pixel_map`
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import sqlalchemy as sa
import structlog
import torch
from torch import Tensor

from service.settings import Settings
from service.store.tables import Project
from worker.jobs.context import JobContext
from worker.jobs.item_pixels import ItemPixels
from worker.pixel_map import Origins, PixelMap, bytes_below, origin
from worker.pool_view import Ints

_LEFT_FREE = 0.1  # of the disk
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = structlog.get_logger()


class ItemRow(Protocol):
    @property
    def id(self) -> int: ...

    @property
    def uri(self) -> str: ...


class PoolPixels:
    def __init__(self, context: JobContext, item_pixels: ItemPixels, side: int) -> None:
        self._settings, self._item_pixels = context.settings, item_pixels
        with context.read() as session:
            projects = session.execute(sa.select(Project.id, Project.created_at)).all()
        # Numbers of deleted projects may be given again.
        names = {row.id: f"{row.id}-{origin(row.created_at.isoformat()):x}" for row in projects}
        self._projects = frozenset(names.values())
        self._map = PixelMap(maps_of(context.settings) / names[context.job.project_id or 0] / str(side), side)

    def stack(self, items: Sequence[ItemRow]) -> Tensor:
        """(m, 3, s, s) uint8 in their order, less those that cannot be read."""
        found, known = self._map.read(_ids(items), _origins(items))
        if found.all():
            return known
        others = np.flatnonzero(~found)
        decoded = self._item_pixels.decode([items[row].uri for row in others.tolist()], self._map.side)
        readable = found.copy()
        pixels = torch.empty((len(items), *known.shape[1:]), dtype=torch.uint8)
        pixels[torch.from_numpy(found)] = known
        for row, one in zip(others.tolist(), decoded, strict=True):
            if one.pixels is not None:
                pixels[row], readable[row] = one.pixels, True
        return pixels if readable.all() else pixels[torch.from_numpy(readable)]

    def known(self, items: Sequence[ItemRow]) -> dict[int, Tensor]:
        """By row of the items (n,): the pixels (3, s, s) of those that are in the map."""
        found, pixels = self._map.read(_ids(items), _origins(items))
        return dict(zip(np.flatnonzero(found).tolist(), pixels, strict=True))

    def fill(
        self, ids: Ints, items_of: Callable[[Ints], Sequence[ItemRow]], report: Callable[[float, str], None]
    ) -> None:
        """Put the items into the map, as far as there is room for them."""
        if not self._make_room(len(ids)):
            log.info("no room for decoded pixels: they are decoded again in each epoch", items=len(ids))
            return
        done = 0
        for number, rows in self._map.by_range(ids):
            items = items_of(ids[rows])
            try:
                self._fill_range(number, items)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.warning("no room for more decoded pixels", reason=error.strerror, items=done)
                return
            done += len(rows)
            report(done / len(ids), f"reading images, {done:,} of {len(ids):,}")

    def _fill_range(self, number: int, items: Sequence[ItemRow]) -> None:
        ids, origins = _ids(items), _origins(items)
        missing = np.flatnonzero(~self._map.has(number, ids, origins))
        decoded = self._item_pixels.decode([items[row].uri for row in missing.tolist()], self._map.side)
        new = [one.pixels for one in decoded if one.pixels is not None]
        if new:
            rows = missing[[one.pixels is not None for one in decoded]]
            self._map.write(number, ids[rows], origins[rows], torch.stack(new))

    def _make_room(self, items: int) -> bool:
        """Stale maps go; then the maps that were not used for longest, if that helps."""
        root, mine, most = maps_of(self._settings), self._map.folder, self._settings.pixel_map_bytes
        wanted = 3 * self._map.side**2 * items
        if wanted > most:
            return False
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        for stale in root.iterdir():
            if stale.name not in self._projects:
                shutil.rmtree(stale, ignore_errors=True)
        others = sorted((each for each in root.glob("*/*") if each != mine), key=_used_at)
        more = max(0, wanted - bytes_below(mine))
        disk = shutil.disk_usage(root)
        room = disk.free - _LEFT_FREE * disk.total
        if more > room + sum(map(bytes_below, others)):
            return False
        while bytes_below(root) + more > most or more > room:
            if not others:
                return False
            shutil.rmtree(others.pop(0), ignore_errors=True)
            room = shutil.disk_usage(root).free - _LEFT_FREE * disk.total
        return True


def maps_of(settings: Settings) -> Path:
    """The folder of all maps of this worker."""
    return settings.data_dir / "pixels"


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _ids(items: Sequence[ItemRow]) -> Ints:
    return np.array([item.id for item in items], np.int64)


def _origins(items: Sequence[ItemRow]) -> Origins:
    return np.array([origin(item.uri) for item in items], np.uint64)

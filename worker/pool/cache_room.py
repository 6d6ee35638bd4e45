"""The map of a project's pixels on this worker's disk.

It is filled by a training whose pool does not fit into memory, and used by its epochs, by the scoring after it
and by the next jobs. Nothing depends on it: whoever needs room may remove a map at any time.

    <data_dir>/pixels/<project>/<side>/<range>.u8    see `worker.pool.decoded_cache`
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import sqlalchemy as sa
import structlog
import torch

from service.settings import Settings
from service.store.tables import Project
from worker.arrays import Ints
from worker.jobs.context import JobContext
from worker.pool.cached_reader import ItemRow, MappedPixels, ids_of, origins_of
from worker.pool.decoded_cache import PixelMap, bytes_below, origin
from worker.pool.reader import ItemPixels

# The last: somebody else made room meanwhile.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT)

log = structlog.get_logger()


class PoolPixels(MappedPixels):
    def __init__(self, context: JobContext, item_pixels: ItemPixels, side: int) -> None:
        self._settings = context.settings
        with context.read() as session:
            projects = session.execute(sa.select(Project.id, Project.created_at)).all()
        # Numbers of deleted projects may be given again.
        names = {row.id: f"{row.id}-{origin(row.created_at.isoformat()):x}" for row in projects}
        self._projects = frozenset(names.values())
        folder = maps_of(context.settings) / names[context.job.project_id or 0] / str(side)
        super().__init__(PixelMap(folder, side), item_pixels)

    def fill(
        self, ids: Ints, items_of: Callable[[Ints], Sequence[ItemRow]], report: Callable[[float, str], None]
    ) -> None:
        """Put the items into the map, as far as there is room for them."""
        if not self._make_room(len(ids)):
            log.info("no room for decoded pixels: they are decoded again in each epoch", items=len(ids))
            return
        done = 0
        for number, rows in self.map.by_range(ids):
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
        ids, origins = ids_of(items), origins_of(items)
        missing = np.flatnonzero(~self.map.has(number, ids, origins))
        decoded = self._item_pixels.decode([items[row].uri for row in missing.tolist()], self.map.side)
        new = [one.pixels for one in decoded if one.pixels is not None]
        if new:
            rows = missing[[one.pixels is not None for one in decoded]]
            self.map.write(number, ids[rows], origins[rows], torch.stack(new))

    def _make_room(self, items: int) -> bool:
        """Stale maps go; then the maps that were not used for longest, if that helps."""
        root, mine, most = maps_of(self._settings), self.map.folder, self._settings.pixel_map_bytes
        wanted = 3 * self.map.side**2 * items
        if wanted > most:
            return False
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        for unfinished in mine.glob("*.tmp"):  # of a worker that was killed
            unfinished.unlink(missing_ok=True)
        for stale in root.iterdir():
            if stale.name not in self._projects:
                shutil.rmtree(stale, ignore_errors=True)
        others = sorted((each for each in root.glob("*/*") if each != mine), key=_used_at)
        more = max(0, wanted - bytes_below(mine))
        room = _room(root)
        if more > room + sum(map(bytes_below, others)):
            return False
        while bytes_below(root) + more > most or more > room:
            if not others:
                return False
            shutil.rmtree(others.pop(0), ignore_errors=True)
            room = _room(root)
        return True


def maps_of(settings: Settings) -> Path:
    """The folder of all maps of this worker."""
    return settings.data_dir / "pixels"


def _room(root: Path) -> int:
    """Bytes that maps may still take: others, the database among them, write to this disk too."""
    disk = shutil.disk_usage(root)
    return disk.free - min(disk.total // 10, 10 * 2**30)


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0

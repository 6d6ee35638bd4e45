"""The cache of a project's decoded items on this worker's disk, and the room it may take.

It is filled by a training whose pool does not fit into memory, and used by its epochs, by the scoring after it
and by the next jobs. Nothing depends on it: whoever needs room may remove a cache at any time.

    <data_dir>/decoded/<project>/<input>/<range>.items    see `worker.pool.decoded_cache`
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
import torch

from service.settings import Settings
from worker.arrays import Ints
from worker.modalities import Modality
from worker.pool.cached_reader import CachedReader, origins_of
from worker.pool.decoded_cache import DecodedCache, bytes_below, item_bytes, origin
from worker.pool.items import ItemRef, ids_of
from worker.pool.reader import ItemReader

# The last: somebody else made room meanwhile.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT)

log = structlog.get_logger()


@dataclass(frozen=True)
class CacheNames:
    """Names of cache folders: the project's own, and those of all projects there are; any other is stale."""

    own: str
    live: frozenset[str]


class PoolCache(CachedReader):
    def __init__(self, settings: Settings, names: CacheNames, reader: ItemReader, modality: Modality) -> None:
        self._settings, self._live = settings, names.live
        folder = caches_of(settings) / names.own / _input_name(modality)
        super().__init__(DecodedCache(folder, modality), reader)

    def fill(
        self, ids: Ints, items_of: Callable[[Ints], Sequence[ItemRef]], report: Callable[[float, str], None]
    ) -> None:
        """Put the items into the cache, as far as there is room for them."""
        if not self._make_room(len(ids)):
            log.info("no room for decoded items: they are decoded again in each epoch", items=len(ids))
            return
        done = 0
        for number, rows in self.cache.by_range(ids):
            items = items_of(ids[rows])
            try:
                self._fill_range(number, items)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.warning("no room for more decoded items", reason=error.strerror, items=done)
                return
            done += len(rows)
            report(done / len(ids), f"reading items, {done:,} of {len(ids):,}")

    def _fill_range(self, number: int, items: Sequence[ItemRef]) -> None:
        ids, origins = ids_of(items), origins_of(items)
        missing = np.flatnonzero(~self.cache.has(number, ids, origins))
        decoded = self._reader.decode_items([items[row] for row in missing.tolist()], self.cache.modality)
        new = [one.item for one in decoded if one.item is not None]
        if new:
            rows = missing[[one.item is not None for one in decoded]]
            self.cache.write(number, ids[rows], origins[rows], torch.stack(new))

    def _make_room(self, items: int) -> bool:
        """Stale caches go; then those that were not used for longest, if that helps."""
        root, mine, most = caches_of(self._settings), self.cache.folder, self._settings.decoded_cache_bytes
        wanted = item_bytes(self.cache.modality) * items
        if wanted > most:
            return False
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        for unfinished in mine.glob("*.tmp"):  # of a worker that was killed
            unfinished.unlink(missing_ok=True)
        for stale in root.iterdir():
            if stale.name not in self._live:
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


def caches_of(settings: Settings) -> Path:
    """The folder of all caches of this worker."""
    return settings.data_dir / "decoded"


def _input_name(modality: Modality) -> str:
    return f"{modality.name}-{origin(modality.model_dump_json()):x}"


def _room(root: Path) -> int:
    """Bytes that caches may still take: others, the database among them, write to this disk too."""
    disk = shutil.disk_usage(root)
    return disk.free - min(disk.total // 10, 10 * 2**30)


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0

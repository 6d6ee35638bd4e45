"""Shards in this process: the next one is loaded while the device computes this one."""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import ClassVar

from worker.device import choose_device
from worker.engines import Engine, L, R, S, Work
from worker.pool.dataset import ahead


class LocalEngine(Engine):
    name: ClassVar[str] = "local"

    def map(
        self, work: Work[S, L, R], shards: Iterable[S], *, device: str, processes: int = 1
    ) -> Generator[R, None, None]:
        """In the order of the shards."""
        running = work.open(str(choose_device(device)))
        with closing(running), closing(ahead(map(running.load, shards), 1)) as loaded:
            for shard in loaded:
                yield running.compute(shard)

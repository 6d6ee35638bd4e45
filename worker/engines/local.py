"""Shards in this process: the next one is loaded while the device computes this one."""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Protocol, TypeVar

from worker.pool.dataset import ahead

Shard = TypeVar("Shard", contravariant=True)
Loaded = TypeVar("Loaded")
Stored = TypeVar("Stored", covariant=True)


class ShardFunction(Protocol[Shard, Loaded, Stored]):
    """What runs on a shard. It stores the result itself, under a name that only this shard has."""

    def load(self, shard: Shard) -> Loaded:
        """Read and decode; runs ahead, in another thread."""
        ...

    def compute(self, loaded: Loaded) -> Stored:
        """On the device; stores the artifact and says where."""
        ...


class LocalEngine:
    def map(
        self, function: ShardFunction[Shard, Loaded, Stored], shards: Iterable[Shard]
    ) -> Generator[Stored, None, None]:
        """The finished shards, in order."""
        with closing(ahead(map(function.load, shards), depth=1)) as loaded_shards:
            for loaded in loaded_shards:
                yield function.compute(loaded)

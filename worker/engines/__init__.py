"""Engines: where shards are computed. One file each; being there is registering; `settings.engine` chooses."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from typing import ClassVar, Protocol, TypeVar

from worker.registry import plug_ins

S = TypeVar("S")  # a shard: plain data, picklable
L = TypeVar("L")  # a loaded shard; it never leaves the process
R = TypeVar("R")  # its result: plain data, picklable

_SIn = TypeVar("_SIn", contravariant=True)
_L = TypeVar("_L")
_ROut = TypeVar("_ROut", covariant=True)


class Running(Protocol[_SIn, _L, _ROut]):
    """Work that is open in one process, on one device."""

    def load(self, shard: _SIn) -> _L:
        """Read and decode; it may run ahead, in another thread."""
        ...

    def compute(self, loaded: _L) -> _ROut:
        """On the device. It stores what is large under a name that only this shard has, so that a shard that is
        computed again, after its process was lost, does no harm.
        """
        ...

    def close(self) -> None: ...


class Work(Protocol[_SIn, _L, _ROut]):
    """Work as plain data, picklable: no session, no open file, no network."""

    def open(self, device: str) -> Running[_SIn, _L, _ROut]:
        """Once a process: networks, readers, artifacts."""
        ...


class Engine(ABC):
    name: ClassVar[str]

    @abstractmethod
    def map(
        self, work: Work[S, L, R], shards: Iterable[S], *, device: str, processes: int = 1
    ) -> Generator[R, None, None]:
        """The results of the shards, each once, in any order. Closing it ends what runs. What a shard raises is
        raised here; a lost process repeats only its own shard. `shards` is read as far as there is room to compute.

        device     as `settings.device` names it; work is opened on one device
        processes  how many compute at once, where an engine has processes of its own
        """


def engines() -> dict[str, type[Engine]]:
    return plug_ins(Engine, "worker.engines")

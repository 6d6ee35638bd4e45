"""The pool as batches of pixels: from memory when it fits, else decoded ahead of the device."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from worker.arrays import Ints

T = TypeVar("T")

_WINDOW = 8  # blocks shuffled together where access is sequential


@dataclass(frozen=True)
class Dataset:
    """`size` items; `load` takes rows (b,) and gives uint8 (b, 3, s, s), less the items that cannot be read.

    `block` is 1 where any row is as near as any other. Where rows lie in files that are read in blocks, an
    epoch visits blocks in random order, and rows at random within a few of them.
    """

    size: int
    load: Callable[[Ints], Tensor]
    block: int = 1

    def batches(self, seed: int, epoch: int, batch_size: int, first: int = 0) -> Iterator[Tensor]:
        """The epoch's batches from the `first` on: the same for the same seed and epoch."""
        order = epoch_order(self.size, self.block, np.random.default_rng((seed, epoch)))
        rows = (
            order[start : start + batch_size] for start in range(first * batch_size, self.size, batch_size)
        )
        return (self.load(some) for some in rows)


def epoch_order(size: int, block: int, rng: np.random.Generator) -> Ints:
    """(size,) a random order of the rows."""
    if block == 1:
        return rng.permutation(size)
    blocks = rng.permutation(-(-size // block))
    windows = [blocks[start : start + _WINDOW] for start in range(0, len(blocks), _WINDOW)]
    rows = [(window[:, None] * block + np.arange(block)).ravel() for window in windows]
    return np.concatenate([rng.permutation(window[window < size]) for window in rows])


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The same items, made in another thread up to `depth` ahead. What it raises is raised here.

    Close it (`contextlib.closing`) to end the thread when reading may stop early.
    """
    made: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, object]) -> None:
        while not stop.is_set():
            try:
                return made.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put((True, item))
                if stop.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = made.get()
            if more:
                yield item  # type: ignore[misc]
            elif isinstance(item, BaseException):
                raise item
            else:
                return
    finally:
        stop.set()
        thread.join()

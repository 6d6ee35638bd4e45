"""The quickest batch size and number of threads, measured rather than guessed: it takes a second or two."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

_ROUNDS = 2  # candidates take turns, so that a busy moment does not decide; the best time of each counts
_CLEARLY = 1.03  # times as quick, or the way at hand stays


@dataclass(frozen=True)
class Way:
    batch: int
    threads: int


def quickest(
    begin: Way,
    batches: Sequence[int],
    threads: Sequence[int],
    run: Callable[[Way], None],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Way:
    """The way that does most items a second: `run` does one batch of its way.

    First the threads, then the batch sizes; what is not tried within `seconds`, or does not fit into the device's
    memory, is not chosen.
    """
    until = clock() + seconds
    _rate(begin, run, clock)  # the first time is always slow
    best = begin
    for others in (
        [Way(begin.batch, count) for count in threads],
        [Way(size, 0) for size in sorted(batches)],
    ):
        ways = [Way(other.batch, other.threads or best.threads) for other in others]
        best = _best_of([best, *(way for way in ways if way != best)], run, until, clock)
    return best


def _best_of(ways: list[Way], run: Callable[[Way], None], until: float, clock: Callable[[], float]) -> Way:
    rates = dict.fromkeys(ways, 0.0)
    for _ in range(_ROUNDS):
        for way in ways:
            if clock() >= until:
                break
            rates[way] = max(rates[way], _rate(way, run, clock))
    quickest_way = max(ways, key=lambda way: rates[way])
    return quickest_way if rates[quickest_way] > _CLEARLY * rates[ways[0]] else ways[0]


def _rate(way: Way, run: Callable[[Way], None], clock: Callable[[], float]) -> float:
    """Items a second."""
    started = clock()
    try:
        run(way)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return 0.0
    return way.batch / max(clock() - started, 1e-9)

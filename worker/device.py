"""Choice of the device that computes, and the few settings that make it fast."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

_MOST_AHEAD = 2**29  # bytes that are copied to the device before they are wanted; several such wait there


def choose_device(wish: str) -> torch.device:
    """`auto` is CUDA when there is one, else the CPU; of several the first. Raises ValueError for a device that is not
    there.
    """
    wish = wish.split(",")[0]
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError:
        raise ValueError(f"{wish!r} is no device: say auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"this machine has {torch.cuda.device_count()} CUDA devices, so not {wish!r}")
    return device


def choose_devices(wish: str, trainers: int) -> list[torch.device]:
    """One for each of the processes that train together: as many CUDA devices, those named (`cuda:1,cuda:3`; one that
    is named twice computes for two), or the CPU for all. Raises ValueError where they are not there.
    """
    named = wish.split(",")
    if len(named) > 1:
        if len(named) < trainers:
            raise ValueError(
                f"{wish!r} are {len(named)} devices, but {trainers} are to train (SHORTLIST_DEVICES)"
            )
        return [choose_device(one) for one in named[:trainers]]
    device = choose_device(wish)
    if trainers == 1 or device.type != "cuda":
        return [device] * trainers
    if device.index is not None:
        raise ValueError(f"{wish!r} is one device, but {trainers} are to train (SHORTLIST_DEVICES): say cuda")
    if trainers > torch.cuda.device_count():
        raise ValueError(
            f"this machine has {torch.cuda.device_count()} CUDA devices, so not {trainers} (SHORTLIST_DEVICES)"
        )
    return [torch.device("cuda", index) for index in range(trainers)]


def use_threads(threads: int | None) -> int:
    """Threads for torch; as many decode. Default: the cores this process may use."""
    count = threads or available_cores()
    torch.set_num_threads(count)
    return count


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(count: int, rows: int, do: Callable[[slice], None]) -> None:
    """Calls `do` with each part of `count` rows, in as many threads as torch computes in; in each of them NumPy and
    torch compute in one thread. Threads of BLAS wait for each other at every product: blocks of 256 rows take as long
    with two of them as with one. Not worth it below some 50 ms of work, as 8 of them are spent on telling BLAS.
    """
    parts = [slice(start, start + rows) for start in range(0, count, rows)]
    threads = torch.get_num_threads()
    if min(threads, len(parts)) < 2:
        deque(map(do, parts), maxlen=0)
        return
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            deque(pool.map(do, parts), maxlen=0)  # raises what they raised
    finally:
        torch.set_num_threads(threads)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 on CUDA. On a CPU without AMX it is many times slower than float32, so not there."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def to_device(items: Tensor, device: torch.device) -> Tensor:
    """Decoded items to the device, without waiting for it on CUDA; pictures lie channels_last in memory."""
    if device.type == "cuda" and items.device.type == "cpu":
        items = _pinned(items).to(device, non_blocking=True)
    return items.contiguous(memory_format=torch.channels_last) if items.ndim == 4 else items


@dataclass(frozen=True)
class Sent:
    """Items that another thread sends to the device, while it computes on those before; see `send`."""

    items: Tensor
    _copied: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self.items)

    def arrived(self) -> Tensor:
        """The items; what this thread asks of the device from now on comes after their copy. Those that were too
        many still lie in pinned memory, for `to_device`.
        """
        if self._copied is not None:
            stream = torch.cuda.current_stream(self.items.device)
            stream.wait_event(self._copied)
            self.items.record_stream(stream)
        return self.items


def send(items: Tensor, device: torch.device) -> Sent:
    """`to_device` in the thread that has loaded the items: that pins memory, which takes longer than the copy, and the
    copy has a stream of its own, so that no computing waits for either.
    """
    if device.type != "cuda":
        return Sent(to_device(items, device))
    with torch.cuda.device(device):
        items = _pinned(items)
        if items.nbytes > _MOST_AHEAD:
            return Sent(items)
        stream = _copies(device)
        try:
            with torch.cuda.stream(stream):
                return Sent(to_device(items, device), stream.record_event())
        except torch.OutOfMemoryError:  # it may be in use for the batches before
            return Sent(items)


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(n,) float32 on the device, copied there once: it would be waited for each time."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _pinned(items: Tensor) -> Tensor:
    return items if items.is_pinned() or not len(items) else items.pin_memory()

"""Which device computes, and the few settings that make it fast."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def choose_device(wish: str) -> torch.device:
    """`auto` is CUDA when there is one, else the CPU. Raises ValueError for a device that is not there."""
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
    """One for each of the processes that train together: as many CUDA devices, or the CPU for all. Raises
    ValueError where they are not there.
    """
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


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 on CUDA. On a CPU without AMX it is many times slower than float32, so not there."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def to_device(items: Tensor, device: torch.device) -> Tensor:
    """Decoded items to the device, without waiting for it on CUDA; pictures lie channels_last in memory."""
    if device.type == "cuda":
        items = items.pin_memory().to(device, non_blocking=True)
    return items.contiguous(memory_format=torch.channels_last) if items.ndim == 4 else items

"""The device follows the machine, or the operator."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from worker.device import autocast, choose_device, choose_devices, side_by_side, to_device


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_the_operator_overrides() -> None:
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("wish", ["cuda:99", "teapot", ""])
def test_a_device_that_is_not_there(wish: str) -> None:
    with pytest.raises(ValueError, match=r"CUDA devices|is no device"):
        choose_device(wish)


def test_each_trainer_has_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cpu, first, second = torch.device("cpu"), torch.device("cuda:0"), torch.device("cuda:1")

    assert choose_devices("auto", 1) == [torch.device("cuda")]
    assert choose_devices("cuda:1", 1) == [second]
    assert choose_devices("cuda", 2) == choose_devices("auto", 2) == [first, second]
    assert choose_devices("cpu", 3) == [cpu, cpu, cpu]
    with pytest.raises(ValueError, match="2 CUDA devices, so not 3"):
        choose_devices("auto", 3)
    with pytest.raises(ValueError, match="is one device, but 2"):
        choose_devices("cuda:1", 2)


def test_a_cpu_computes_in_float32_and_channels_last() -> None:
    cpu = torch.device("cpu")
    moved = to_device(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), cpu)

    assert moved.is_contiguous(memory_format=torch.channels_last)
    with autocast(cpu):
        assert torch.mm(torch.zeros(2, 2), torch.zeros(2, 2)).dtype == torch.float32


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_are_computed_side_by_side(two_threads: None) -> None:
    """The first waits for the second, so one thread alone would never end; each computes in one."""
    met, seen = threading.Barrier(2, timeout=10), np.zeros(7, np.int64)

    def do(rows: slice) -> None:
        if rows.start < 6:
            met.wait()
        seen[rows] += torch.get_num_threads()

    side_by_side(len(seen), 3, do)

    assert seen.tolist() == [1] * 7
    assert torch.get_num_threads() == 2


def test_what_a_part_raises_is_raised(two_threads: None) -> None:
    def do(rows: slice) -> None:
        raise ValueError(f"part {rows.start}")

    with pytest.raises(ValueError, match="part 0"):
        side_by_side(4, 2, do)
    assert torch.get_num_threads() == 2

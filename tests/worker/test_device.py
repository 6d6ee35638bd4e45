"""The device follows the machine, or the operator."""

import pytest
import torch

from worker.device import autocast, choose_device, to_device


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


def test_a_cpu_computes_in_float32_and_channels_last() -> None:
    cpu = torch.device("cpu")
    moved = to_device(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), cpu)

    assert moved.is_contiguous(memory_format=torch.channels_last)
    with autocast(cpu):
        assert torch.mm(torch.zeros(2, 2), torch.zeros(2, 2)).dtype == torch.float32

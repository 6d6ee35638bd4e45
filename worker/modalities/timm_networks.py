"""Networks by the names that timm and torchvision have for them, as backbones of whatever can be seen as pictures."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from worker.modalities import BackboneUnusable

Network = TypeVar("Network", bound=nn.Module)
# What timm wants before the name on the hub, or the folder, of a model in its format.
_KEPT_ELSEWHERE = ("hf-hub:", "local-dir:")


def is_timm(name: str) -> bool:
    import timm  # here, as it brings torchvision and takes two seconds, and `small` needs none of it

    return name.startswith(_KEPT_ELSEWHERE) or bool(timm.is_model(name))


def make_timm(name: str, pretrained: bool, size: tuple[int, int], channels: int = 3) -> nn.Module:
    """A model of timm without its classifier, (n, channels, *size) -> (n, d). Raises whatever timm does."""
    import timm

    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "in_chans": channels}
    try:  # transformers need to know the size; most convolutional networks do not take it
        made = timm.create_model(name, img_size=size, **options)
    except TypeError:
        made = timm.create_model(name, **options)
    assert isinstance(made, nn.Module)
    return made


def tried(
    name: str, pretrained: bool, make: Callable[[], Network], dummy: Tensor, shown: str
) -> tuple[Network, int]:
    """The network in train mode, and the d of its output (n, d) for a dummy batch. Raises `BackboneUnusable`.

    shown: the size of the items, for the sentence
    """
    try:
        network = make()
        with torch.no_grad():
            embedding = network.eval()(dummy)
    except Exception as error:  # weights that cannot be downloaded, sizes that a model does not take, …
        start = "with pretrained weights" if pretrained else "without pretrained weights"
        raise BackboneUnusable(
            f"The backbone {name!r} cannot be built {start} for {shown}: {error}"
        ) from error
    return network.train(), embedding.shape[1]


def unknown(name: str, others: Iterable[str] = ()) -> BackboneUnusable:
    """The sentence that there is no such network, neither of timm nor one of these others."""
    import timm

    close = difflib.get_close_matches(name, ["small", *others, *timm.list_models()], n=5, cutoff=0.4)
    hint = f"Close: {', '.join(close)}." if close else "Use `small`, or one of `timm.list_models()`."
    return BackboneUnusable(f"There is no backbone {name!r}. {hint}")


def without_weights() -> BackboneUnusable:
    return BackboneUnusable("The backbone `small` has no pretrained weights: unset `pretrained`.")

"""The layers of a backbone that embeddings may be taken from. None stands for the backbone's own embedding.

Networks trained on some pretext tasks know most about classes in the middle: their last layers give up what the task
does not ask for (Kolesnikov et al. 2019, "Revisiting Self-Supervised Visual Representation Learning",
https://arxiv.org/abs/1901.09005).
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

_CANDIDATES = 6  # at most, spread over the depth: transformers have dozens of alike blocks


def candidates(backbone: nn.Module) -> list[str]:
    """Names of layers, in the order of the forward: the backbone's own `layers`, or what timm calls features."""
    own = getattr(backbone, "layers", None)
    if isinstance(own, tuple):
        return list(own)
    known = dict(backbone.named_modules())
    names = [info["module"] for info in getattr(backbone, "feature_info", [])]
    names = [name for name in dict.fromkeys(names) if name in known]
    if len(names) <= _CANDIDATES:
        return names
    return [names[round(step * (len(names) - 1) / (_CANDIDATES - 1))] for step in range(_CANDIDATES)]


def joins_layers(backbone: nn.Module) -> bool:
    """True if the backbone's own output is made of more than its last layer, as those of the modalities' own are."""
    return isinstance(getattr(backbone, "layers", None), tuple)


def pooled(backbone: nn.Module, layer: str, output: Tensor) -> Tensor:
    """A layer's output, pooled to (n, c): the mean over the places of a map, or over the tokens of patches."""
    if output.ndim == 4:
        return output.mean((1, 2) if _channels_last(backbone, layer, output) else (2, 3))
    if output.ndim == 3:
        return output[:, getattr(backbone, "num_prefix_tokens", 0) :].mean(1)
    return output


def _channels_last(backbone: nn.Module, layer: str, output: Tensor) -> bool:
    """Some backbones of timm say so, of others only the number of channels tells."""
    if getattr(backbone, "output_fmt", None) == "NHWC":
        return True
    channels: dict[str, int]
    channels = {info["module"]: info["num_chs"] for info in getattr(backbone, "feature_info", [])}
    return channels.get(layer, output.shape[1]) != output.shape[1]


def embeddings_at(
    backbone: nn.Module, layers: Sequence[str | None], images: Tensor
) -> dict[str | None, Tensor]:
    """By layer, prepared items -> (n, c): all from one pass. Layers are left out that give no single tensor, or are not
    called: some backbones have branches, or go through the parts of a list.
    """
    found: dict[str | None, Tensor] = {}

    def keep(layer: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            found[layer] = pooled(backbone, layer, output)

    hooks = [
        backbone.get_submodule(layer).register_forward_hook(partial(keep, layer))
        for layer in layers
        if layer is not None
    ]
    try:
        found[None] = backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: found[layer] for layer in layers if layer in found}


class AtLayer(nn.Module):
    """A backbone whose embedding is taken from a layer: prepared items -> (n, c)."""

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return embeddings_at(self.backbone, [self.layer], images)[self.layer]


def at_layer(backbone: nn.Module, layer: str | None) -> nn.Module:
    return backbone if layer is None else AtLayer(backbone, layer)

"""A pretext model's spec to its network: untrained, or with the weights of its artifact."""

import json
from typing import Any

import safetensors.torch
import torch
from torch import nn

from worker.models.spec import ModelSpec


def new_net(spec: ModelSpec) -> nn.Module:
    """Untrained, or with pretrained weights; the same for the same seed. Raises `BackboneUnusable` and,
    as `ModelSpec.make_task` does, `Unsuited` and `JobFailed`.
    """
    torch.manual_seed(spec.seed)
    return _net(spec, pretrained=spec.pretrained)


def load_net(spec: ModelSpec, weights: bytes, device: torch.device) -> nn.Module:
    """The finished model in eval mode, on the device; raises as `new_net` does."""
    net = _net(spec, pretrained=False)
    net.load_state_dict(safetensors.torch.load(weights))
    return on_device(net, device).eval()


def as_safetensors(net: nn.Module, spec: ModelSpec, config: dict[str, Any]) -> bytes:
    """Its metadata hold all that rebuilds it."""
    tensors = {key: tensor.cpu().contiguous().clone() for key, tensor in net.state_dict().items()}
    about = {"task": spec.task, "backbone": spec.backbone, "config": config}
    return safetensors.torch.save(tensors, {key: json.dumps(value) for key, value in about.items()})


def on_device(net: nn.Module, device: torch.device) -> nn.Module:
    """Weights of convolutions over pictures lie channels_last in memory; those over space and time have no such order,
    and a network that has them stays as it is.
    """
    options: dict[str, Any] = {"device": device}
    if not any(weights.ndim == 5 for weights in net.parameters()):
        options["memory_format"] = torch.channels_last
    return net.to(**options)


def _net(spec: ModelSpec, pretrained: bool) -> nn.Module:
    modality = spec.make_modality()
    backbone, dimensions = modality.make_backbone(spec.backbone, pretrained)
    return spec.make_task().make_net(backbone, dimensions, modality)

"""Batch norm folded into the convolution before it: in eval mode both are one affine map, so one suffices."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_Conv = nn.Conv2d | nn.Conv3d
_FORWARDS = (nn.Conv2d.forward, nn.Conv3d.forward)  # subclasses that pad or scale by themselves have others
_PLAIN = (nn.BatchNorm2d, nn.BatchNorm3d)
_TOLERANCE = 1e-5  # relative; folding rounds differently, it must not change anything


def folded(net: nn.Module, run: Callable[[nn.Module], Tensor], tolerance: float = _TOLERANCE) -> nn.Module:
    """A copy of the network, which is in eval mode, with every batch norm folded that directly follows a
    convolution; the network itself where the copy would not give the same. `run` sends a few items through it.

    Which follows which is seen while the network runs, so that it works for any network.
    """
    made = copy.deepcopy(net)
    with torch.no_grad():
        expected = run(net)
        pairs = _pairs(made, run)
        for norm, conv in pairs.items():
            _fold(conv, norm)
        for parent in list(made.modules()):
            for name, child in list(parent.named_children()):
                if child in pairs:
                    setattr(parent, name, _rest(child))
        same = torch.allclose(run(made), expected, rtol=tolerance, atol=tolerance)
    return made if pairs and same else net


def _pairs(net: nn.Module, run: Callable[[nn.Module], Tensor]) -> dict[nn.Module, _Conv]:
    """Batch norm -> the convolution whose outputs, and no others, it is given."""
    made_by: dict[int, tuple[_Conv, Tensor]] = {}  # by id of the output, which is kept so that ids stay
    found: dict[nn.Module, set[_Conv | None]] = {}
    used_by: dict[_Conv, set[nn.Module]] = {}

    def remember(conv: _Conv, _: nn.Module, __: object, output: Tensor) -> None:
        made_by[id(output)] = (conv, output)

    def pair(norm: nn.Module, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        conv = made_by.get(id(inputs[0]), (None, None))[0]
        found.setdefault(norm, set()).add(conv)
        if conv is not None:
            used_by.setdefault(conv, set()).add(norm)

    hooks = []
    for module in net.modules():
        if isinstance(module, _Conv) and type(module).forward in _FORWARDS:
            hooks.append(module.register_forward_hook(partial(remember, module)))
        elif _is_norm(module) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(partial(pair, module)))
    try:
        run(net)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        norm: conv
        for norm, convs in found.items()
        if len(convs) == 1 and (conv := next(iter(convs))) is not None and len(used_by[conv]) == 1
    }


def _is_norm(module: nn.Module) -> bool:
    """Also timm's that drops and activates in the same module."""
    return type(module) in _PLAIN or (
        isinstance(module, nn.BatchNorm2d) and hasattr(module, "drop") and hasattr(module, "act")
    )


def _rest(norm: nn.Module) -> nn.Module:
    """The part of a norm that is not folded."""
    rest = () if type(norm) in _PLAIN else (norm.get_submodule("drop"), norm.get_submodule("act"))
    return nn.Sequential(*rest)


def _fold(conv: _Conv, norm: nn.Module) -> None:
    assert isinstance(norm, _PLAIN)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )

"""Batch norm folded into the convolution or linear layer before it: in eval mode both are one affine map."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

_Affine = nn.Conv2d | nn.Conv3d | nn.Linear
# Subclasses that pad or scale by themselves have others.
_FORWARDS = (nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward)
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TOLERANCE = 1e-5  # relative; folding rounds differently, it must not change anything


def folded(net: nn.Module, run: Callable[[nn.Module], Tensor], tolerance: float = _TOLERANCE) -> nn.Module:
    """A copy of the network, which is in eval mode, with every batch norm folded that directly follows a convolution
    or a linear layer; the network itself where the copy would not give the same. `run` sends a few items through it.

    Which follows which is seen while the network runs, so that it works for any network.
    """
    made = copy.deepcopy(net)
    with torch.no_grad():
        expected = run(net)
        pairs = _pairs(made, run)
        for norm, affine in pairs.items():
            _fold(affine, norm)
        for parent in list(made.modules()):
            for name, child in list(parent.named_children()):
                if child in pairs:
                    setattr(parent, name, _rest(child))
        same = torch.allclose(run(made), expected, rtol=tolerance, atol=tolerance)
    return made if pairs and same else net


def _pairs(net: nn.Module, run: Callable[[nn.Module], Tensor]) -> dict[nn.Module, _Affine]:
    """Batch norm -> the layer whose outputs, and no others, it is given."""
    made_by: dict[int, tuple[_Affine, Tensor]] = {}  # by id of the output, which is kept so that ids stay
    found: dict[nn.Module, set[_Affine | None]] = {}
    used_by: dict[_Affine, set[nn.Module]] = {}

    def remember(affine: _Affine, _: nn.Module, __: object, output: Tensor) -> None:
        if isinstance(affine, nn.Linear) and output.dim() != 2:
            return  # a norm after it would be of another dimension than its outputs'
        made_by[id(output)] = (affine, output)

    def pair(norm: nn.Module, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        affine = made_by.get(id(inputs[0]), (None, None))[0]
        found.setdefault(norm, set()).add(affine)
        if affine is not None:
            used_by.setdefault(affine, set()).add(norm)

    hooks = []
    for module in net.modules():
        if isinstance(module, _Affine) and type(module).forward in _FORWARDS:
            hooks.append(module.register_forward_hook(partial(remember, module)))
        elif _is_norm(module) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(partial(pair, module)))
    try:
        run(net)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        norm: affine
        for norm, each in found.items()
        if len(each) == 1 and (affine := next(iter(each))) is not None and len(used_by[affine]) == 1
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


def _fold(affine: _Affine, norm: nn.Module) -> None:
    assert isinstance(norm, _PLAIN)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean, norm.running_var
    scale = torch.ones_like(mean) if norm.weight is None else norm.weight
    shift = torch.zeros_like(mean) if norm.bias is None else norm.bias
    fuse = fuse_linear_bn_weights if isinstance(affine, nn.Linear) else fuse_conv_bn_weights
    affine.weight, affine.bias = fuse(affine.weight, affine.bias, mean, variance, norm.eps, scale, shift)

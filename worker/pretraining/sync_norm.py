"""Batch norm over the items of all trainers, so that a batch means the same however many share it."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from worker import collectives


def synced(net: nn.Module, device: torch.device) -> nn.Module:
    """With the same parameters, buffers and names. Torch's own on CUDA; it does not take the CPU."""
    if device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm  # here, as it takes two seconds

        converted: nn.Module = convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return converted
    if isinstance(net, _BatchNorm):
        return _SyncedNorm(net)
    for name, child in net.named_children():
        setattr(net, name, synced(child, device))
    return net


class _SyncedNorm(_BatchNorm):
    """(n, c, …) -> the same. What timm puts behind a norm, in the same module, stays behind it."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, values: Tensor) -> Tensor:
        normalised = self._by_all(values) if self.training else super().forward(values)
        result: Tensor = self.act(self.drop(normalised))
        return result

    def _check_input_dim(self, values: Tensor) -> None:
        """Any number of dimensions."""

    def _by_all(self, values: Tensor) -> Tensor:
        dims = [0, *range(2, values.ndim)]
        here = torch.full((1,), values.numel() / values.shape[1])
        said = collectives.stack_ranks(torch.cat([here, *torch.var_mean(values, dims, correction=0)]))
        counts, variances, means = torch.split(said, [1, self.num_features, self.num_features], 1)
        items = counts.sum()
        mean = (counts * means).sum(0) / items
        variance = (counts * (variances + (means - mean).square())).sum(0) / items
        self._remember(mean.detach(), variance.detach() * items / (items - 1).clamp_min(1))

        weight, bias = (self.weight, self.bias) if self.affine else (1.0, 0.0)
        scale = (variance + self.eps).rsqrt() * weight
        shift = bias - mean * scale
        shape = (1, -1, *[1] * (values.ndim - 2))
        return values * scale.view(shape) + shift.view(shape)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)

"""Backbones of pairs: one of each half, their embeddings joined."""

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import BackboneUnusable, Modality
from worker.modalities.pair.tensors import prepared_halves

_NAMES = ("small",)


def make_backbone(name: str, pretrained: bool, parts: Mapping[str, Modality]) -> tuple[nn.Module, int]:
    """The network, prepared pairs -> (n, d) float, and d; parts: the modalities of both halves, by their names. Raises
    `BackboneUnusable`.
    """
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.4)
        raise BackboneUnusable(
            f"There is no backbone {name!r} for pairs. {'Close' if close else 'There is'}: {', '.join(_NAMES)}."
        )
    if pretrained:
        raise BackboneUnusable("The backbone `small` has no pretrained weights: unset `pretrained`.")
    net = PairBackbone(parts)
    return net, net.dimensions


class PairBackbone(nn.Module):
    """The small networks of both halves. A pair's embedding is both of theirs, each with mean 0 and variance 1 over its
    dimensions, so that none of them outweighs the other.
    """

    def __init__(self, parts: Mapping[str, Modality]) -> None:
        super().__init__()
        self.names, self.parts = tuple(parts), tuple(parts.values())
        widths = []
        for name, part in parts.items():
            net, width = part.make_backbone("small", False)
            self.add_module(name, net)
            widths.append(width)
        self.widths = (widths[0], widths[1])
        self.dimensions = sum(widths)

    def forward(self, batch: Tensor) -> Tensor:
        """Prepared pairs -> (n, d)."""
        both = [
            self.get_submodule(name)(half)
            for name, half in zip(self.names, prepared_halves(batch, self.parts), strict=True)
        ]
        return torch.cat(
            [
                functional.layer_norm(one.float(), (width,))
                for one, width in zip(both, self.widths, strict=True)
            ],
            1,
        )

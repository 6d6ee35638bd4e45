"""Backbones of graphs: networks from nodes and edges to an embedding."""

import difflib
from typing import ClassVar

import torch
from torch import Tensor, nn

from worker.modalities import BackboneUnusable
from worker.modalities.graph.packed import BUCKETS, Flat, flat

_NAMES = ("small",)
_WIDTH = 64
_LAYERS = 3


def make_backbone(name: str, pretrained: bool, nodes: int) -> tuple[nn.Module, int]:
    """The network, (n, N + 2 E) ids -> (n, d) float, and d. Raises `BackboneUnusable`."""
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.4)
        raise BackboneUnusable(
            f"There is no backbone {name!r} for graphs. {'Close' if close else 'There is'}: {', '.join(_NAMES)}."
        )
    if pretrained:
        raise BackboneUnusable("The backbone `small` has no pretrained weights: unset `pretrained`.")
    return SmallGraphBackbone(nodes), SmallGraphBackbone.dimensions


class SmallGraphBackbone(nn.Module):
    """A graph isomorphism network of three layers over the nodes' tags. The embedding joins, of the tags and of each
    layer, the mean over a graph's nodes and their sum over the root of their number, so that it knows of sizes.

    Xu et al. 2019, "How Powerful are Graph Neural Networks?", https://arxiv.org/abs/1810.00826.
    """

    width: ClassVar[int] = _WIDTH
    dimensions: ClassVar[int] = 2 * (_LAYERS + 1) * _WIDTH

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.nodes = nodes
        self.embedding = nn.Embedding(BUCKETS, self.width)
        self.layers_ = nn.ModuleList(GINLayer(self.width) for _ in range(_LAYERS))

    def forward(self, batch: Tensor) -> Tensor:
        """(n, N + 2 E) ids -> (n, d)."""
        graphs = flat(batch, self.nodes)
        states = self.states(graphs)
        counts = (
            states[0]
            .new_zeros(graphs.items)
            .index_add(0, graphs.owner, torch.ones_like(graphs.owner, dtype=states[0].dtype))
        )
        counts = counts.clamp_min(1)[:, None]
        joined = torch.cat(states, 1)
        sums = joined.new_zeros((graphs.items, joined.shape[1])).index_add(0, graphs.owner, joined)
        return torch.cat([sums / counts, sums / counts.sqrt()], 1)

    def states(self, graphs: Flat) -> list[Tensor]:
        """The nodes' states (m, 64): those of their tags, then those after each layer."""
        found = [self.embedding(graphs.tags)]
        for layer in self.layers_:
            found.append(layer(found[-1], graphs.ends))
        return found


class GINLayer(nn.Module):
    """A node's own state and the sum of its neighbours', through two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(()))
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )

    def forward(self, states: Tensor, ends: Tensor) -> Tensor:
        """states (m, c), ends (2, k) -> (m, c)."""
        summed = torch.zeros_like(states).index_add(0, ends[1], states[ends[0]])
        joined = (1 + self.own) * states + summed
        if len(joined) == 1 and self.training:  # batch norm needs two values
            joined = joined.expand(2, -1)
        found: Tensor = self.inner(joined)[: len(states)]
        return found

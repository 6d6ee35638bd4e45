"""Reconstruct the tags of masked nodes by a decoder that is itself a graph network."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from worker.modalities import Modality
from worker.modalities.graph.backbones import GINLayer, SmallGraphBackbone
from worker.modalities.graph.packed import BUCKETS, MASK, flat
from worker.modalities.graph.pretext.masks import mean_of, node_masks
from worker.pretext import PretextTask


class GraphMAENet(nn.Module):
    """Graphs (n, N + 2 E) and masks (n, N) -> reconstructed tags of the masked nodes (k, ids), and their items (k,).
    The states of masked nodes are masked once more before a decoder of one layer sees them.
    """

    def __init__(self, backbone: nn.Module, modality: Modality) -> None:
        super().__init__()
        self.backbone = backbone
        self.modality = modality
        width = cast(SmallGraphBackbone, backbone).width
        self.between = nn.Linear(width, width, bias=False)
        self.again = nn.Parameter(torch.zeros(width))  # in the place of masked states
        self.decoder = GINLayer(width)
        self.tags = nn.Linear(width, BUCKETS)

    def forward(self, batch: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        backbone = cast(SmallGraphBackbone, self.backbone)
        nodes = masks.shape[1]
        hidden = torch.cat([batch[:, :nodes].masked_fill(masks, MASK), batch[:, nodes:]], 1)
        graphs = flat(hidden, nodes)
        chosen = masks.flatten()[graphs.place]
        states = self.between(backbone.states(graphs)[-1])
        states = torch.where(chosen[:, None], self.again, states)
        return self.tags(self.decoder(states, graphs.ends)[chosen]).float(), graphs.owner[chosen]


class GraphMAE(PretextTask):
    """Reconstruct the tags of masked nodes, half of a graph. An item's loss is the scaled cosine error, (1 - cosine)
    to a power, between what is reconstructed and the true tags, its mean over the masked nodes and several masks.

    Hou et al. 2022, "GraphMAE: Self-Supervised Masked Graph Autoencoders", https://arxiv.org/abs/2205.10803.
    """

    name: ClassVar[str] = "graphmae"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"graph"})
    scoring_views: ClassVar[int] = 4

    masked: float = Field(0.5, gt=0, le=0.9, description="Share of a graph's nodes that is masked.")
    power: float = Field(2.0, ge=1, le=5, description="Higher looks harder at what is far off.")

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return GraphMAENet(backbone, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        nodes = cast(SmallGraphBackbone, net.backbone).nodes
        masks = node_masks(batch, nodes, self.masked, generator, each=net.training)
        values, owner = net(batch, masks)
        # A true tag is a unit vector: the cosine is its own value over the length of all.
        own = values.gather(1, batch[:, :nodes][masks][:, None])[:, 0]
        cosine = own / values.norm(dim=1).clamp_min(1e-6)
        return mean_of((1 - cosine).clamp_min(0) ** self.power, owner, len(batch))

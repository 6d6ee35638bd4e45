"""Guess the tags of masked nodes."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.modalities.graph.backbones import SmallGraphBackbone
from worker.modalities.graph.packed import BUCKETS, MASK, flat
from worker.modalities.graph.pretext.masks import mean_of, node_masks
from worker.pretext import PretextTask


class TagNet(nn.Module):
    """Graphs (n, N + 2 E) and masks (n, N) -> logits of the tags of the masked nodes (k, ids), and their items (k,)."""

    def __init__(self, backbone: nn.Module, modality: Modality) -> None:
        super().__init__()
        self.backbone = backbone
        self.modality = modality
        width = cast(SmallGraphBackbone, backbone).width
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, BUCKETS))

    def forward(self, batch: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        backbone = cast(SmallGraphBackbone, self.backbone)
        nodes = masks.shape[1]
        hidden = torch.cat([batch[:, :nodes].masked_fill(masks, MASK), batch[:, nodes:]], 1)
        graphs = flat(hidden, nodes)
        chosen = masks.flatten()[graphs.place]
        return self.head(backbone.states(graphs)[-1][chosen]).float(), graphs.owner[chosen]


class AttributeMasking(PretextTask):
    """Guess the tags of masked nodes from the graph around them. An item's loss is the cross-entropy of its masked
    nodes, their mean over several masks, so that large graphs have no higher losses than small ones. Where nodes have
    no tags, their numbers of edges stand for them.

    Hu et al. 2020, "Strategies for Pre-training Graph Neural Networks", https://arxiv.org/abs/1905.12265.
    """

    name: ClassVar[str] = "attribute_masking"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"graph"})
    scoring_views: ClassVar[int] = 4

    masked: float = Field(
        0.25, gt=0, le=0.9, description="Share of a graph's nodes that is masked, at least one node."
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return TagNet(backbone, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        nodes = cast(SmallGraphBackbone, net.backbone).nodes
        masks = node_masks(batch, nodes, self.masked, generator, each=net.training)
        logits, owner = net(batch, masks)
        found = functional.cross_entropy(logits, batch[:, :nodes][masks], reduction="none")
        return mean_of(found, owner, len(batch))

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """Share of the masked tags that are guessed right."""
        nodes = cast(SmallGraphBackbone, net.backbone).nodes
        generator = torch.Generator(batch.device).manual_seed(0)
        masks = node_masks(batch, nodes, self.masked, generator, each=False)
        right = net(batch, masks)[0].argmax(1) == batch[:, :nodes][masks]
        return {"masked_tag_accuracy": float(right.float().mean()) if len(right) else 0.0}

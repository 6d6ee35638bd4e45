"""SimCLR: the other view of an image among the views of others."""

from typing import TYPE_CHECKING, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from worker import collectives
from worker.pretext import PretextNet, PretextTask
from worker.pretext.projection import hidden, mlp

if TYPE_CHECKING:
    from worker.modalities import Modality

_BANK = 2_048
_WIDTH = 128
_CHUNK = 64


class SimCLRNet(PretextNet):
    """Images (n, 3, s, s) -> (n, 128) of length 1. The first `banked` rows of the bank are what scoring compares
    with; before the training has ended they are random.
    """

    bank: Tensor
    banked: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> None:
        super().__init__(backbone, modality)
        self.projection = mlp(dimensions, hidden(dimensions), _WIDTH)
        self.register_buffer("bank", functional.normalize(torch.randn(_BANK, _WIDTH)))
        self.register_buffer("banked", torch.tensor(_BANK))

    def forward(self, images: Tensor) -> Tensor:
        return self.projected(self.backbone(images))

    def projected(self, embeddings: Tensor) -> Tensor:
        """Embeddings (n, d) -> (n, 128) of length 1."""
        found: Tensor = self.projection(embeddings)
        return functional.normalize(found.float())


class SimCLR(PretextTask):
    """Find the other view of an image among the views of other images. While training these are the rest of the
    batch; an item's loss compares with up to 2,048 items of the pool that stay the same for all, less the most
    similar one, which may be the item itself.

    Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations",
    https://arxiv.org/abs/2002.05709.
    """

    name: ClassVar[str] = "simclr"
    largest_batch: ClassVar[int | None] = 1_024
    scoring_views: ClassVar[int] = 4

    temperature: float = Field(0.2, gt=0, description="Lower looks harder at the most similar images.")

    def make_net(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> nn.Module:
        return SimCLRNet(backbone, dimensions, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(SimCLRNet, net)
        views = self.views(net, batch, generator)
        with torch.autocast(batch.device.type, enabled=False):
            positives = (views * views.roll(len(batch), 0)).sum(1)
            if net.training:
                others = views @ collectives.all_gather(views).T
                others.diagonal(collectives.row_offset(views)).fill_(-torch.inf)  # itself
            else:
                others = torch.cat(
                    [positives[:, None], _without_nearest(views @ net.bank[: net.banked].T)], 1
                )
            losses: Tensor = (others / self.temperature).logsumexp(1) - positives / self.temperature
        return losses.view(2, len(batch)).mean(0)

    def views(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """The two views of each item -> (2n, 128), all first ones before all second ones."""
        modality = cast(SimCLRNet, net).modality
        views: Tensor = net(torch.cat([modality.view(batch, generator, each=net.training) for _ in range(2)]))
        return views

    @torch.no_grad()
    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        net = cast(SimCLRNet, net)
        kept = sample[:_BANK]
        for start in range(0, len(kept), _CHUNK):
            part = kept[start : start + _CHUNK]
            net.bank[start : start + len(part)] = net(part)
        net.banked.fill_(len(kept))


def _without_nearest(similarities: Tensor) -> Tensor:
    """(n, m): the largest of each row no longer counts."""
    nearest = similarities.argmax(1, keepdim=True)
    return similarities.scatter(1, nearest, -torch.inf)

"""SimSiam: the projection of another view, without negatives and without a teacher."""

from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from worker.pretext import PretextNet, PretextTask
from worker.pretext.projection import cosine_losses, hidden, mlp, projection_std

if TYPE_CHECKING:
    from worker.modalities import Modality


class SimSiamNet(PretextNet):
    def __init__(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> None:
        super().__init__(backbone, modality)
        width = hidden(dimensions)
        # The batch norm at the end is what keeps it from collapsing, beside the predictor.
        self.projection = nn.Sequential(
            mlp(dimensions, width, width, width), nn.BatchNorm1d(width, affine=False)
        )
        self.predictor = mlp(width, width // 4, width)

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(images))
        return projected


class SimSiam(PretextTask):
    """Predict the projection of another view, which gets no gradient. An item's loss is one minus the cosine of
    the two, both ways.

    Chen and He 2021, "Exploring Simple Siamese Representation Learning", https://arxiv.org/abs/2011.10566.
    """

    name: ClassVar[str] = "simsiam"
    scoring_views: ClassVar[int] = 4

    def make_net(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> nn.Module:
        return SimSiamNet(backbone, dimensions, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(SimSiamNet, net)
        projected = net(torch.cat([net.modality.view(batch, generator, each=net.training) for _ in range(2)]))
        targets = projected.detach().roll(len(batch), 0)
        return cosine_losses(net.predictor(projected), targets).view(2, len(batch)).mean(0)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        return projection_std(net(batch))

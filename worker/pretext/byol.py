"""BYOL: the projection of another view by an EMA teacher."""

from typing import TYPE_CHECKING, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from worker.pretext import PretextNet, PretextTask
from worker.pretext.projection import cosine_losses, hidden, mlp, projection_std
from worker.pretext.teacher import follow, frozen_copy, rising

if TYPE_CHECKING:
    from worker.modalities import Modality

_WIDTH = 256


class BYOLNet(PretextNet):
    def __init__(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> None:
        super().__init__(backbone, modality)
        self.projection = mlp(dimensions, hidden(dimensions), _WIDTH)
        self.predictor = mlp(_WIDTH, hidden(dimensions), _WIDTH)
        self.teacher = nn.Sequential(frozen_copy(backbone), frozen_copy(self.projection))

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, 256): the prediction of the teacher's projection."""
        prediction: Tensor = self.predictor(self.projection(self.backbone(images)))
        return prediction


class BYOL(PretextTask):
    """Predict what a slowly following copy of the network makes of another view. An item's loss is one minus the
    cosine of the two, both ways.

    Grill et al. 2020, "Bootstrap Your Own Latent", https://arxiv.org/abs/2006.07733.
    """

    name: ClassVar[str] = "byol"
    scoring_views: ClassVar[int] = 4

    momentum: float = Field(
        0.99, ge=0, lt=1, description="How slowly the copy follows at the start; 1 at the end."
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> nn.Module:
        return BYOLNet(backbone, dimensions, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(BYOLNet, net)
        views = torch.cat([net.modality.view(batch, generator, each=net.training) for _ in range(2)])
        with torch.no_grad():
            targets = net.teacher(views)
        return cosine_losses(net(views), targets.roll(len(batch), 0)).view(2, len(batch)).mean(0)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        net = cast(BYOLNet, net)
        return projection_std(net.projection(net.backbone(batch)))

    @torch.no_grad()
    def after_step(self, net: nn.Module, done: float) -> None:
        net = cast(BYOLNet, net)
        follow(net.teacher, nn.Sequential(net.backbone, net.projection), rising(self.momentum, done))

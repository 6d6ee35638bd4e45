"""Views alike, dimensions spread and unlike."""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from worker import collectives
from worker.modalities.image.views import view
from worker.pretext import PretextTask
from worker.pretext.projection import hidden, mlp, projection_std

_INVARIANCE, _VARIANCE, _COVARIANCE = 25.0, 25.0, 1.0  # the paper's weights
_WIDTH = 512
_CHUNK = 64


class VICRegNet(nn.Module):
    """Images (n, 3, s, s) -> (n, 512). Mean and covariance of the pool's are what scoring compares with."""

    mean: Tensor
    covariance: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.expander = mlp(dimensions, hidden(dimensions), hidden(dimensions), _WIDTH)
        self.register_buffer("mean", torch.zeros(_WIDTH))
        self.register_buffer("covariance", torch.eye(_WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        expanded: Tensor = self.expander(self.backbone(images))
        return expanded.float()


class VICReg(PretextTask):
    """Make the views of an image alike, while every dimension keeps its spread over the batch and no two say the
    same. An item's loss is the distance of its views, and its share of what the dimensions of the pool have in
    common: the mean of the shares is the covariance term.

    Bardes et al. 2022, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    https://arxiv.org/abs/2105.04906.
    """

    name: ClassVar[str] = "vicreg"
    scoring_views: ClassVar[int] = 4

    def make_net(self, backbone: nn.Module, dimensions: int, image_size: int) -> nn.Module:
        return VICRegNet(backbone, dimensions)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(VICRegNet, net)
        views = net(torch.cat([view(batch, generator, each=net.training) for _ in range(2)]))
        with torch.autocast(batch.device.type, enabled=False):
            one, other = views.chunk(2)
            distances: Tensor = _INVARIANCE * (one - other).square().mean(1)
            if net.training:
                spreads = [_spread_loss(collectives.all_gather(half)) for half in (one, other)]
                return distances + torch.stack(spreads).mean()
            centred = views - net.mean
            shares: Tensor = (centred @ _off_diagonal(net.covariance) * centred).sum(1) / _WIDTH
            return distances + 2 * _COVARIANCE * shares.view(2, len(batch)).mean(0)

    def measures(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        return projection_std(net(batch))

    @torch.no_grad()
    def settle(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        net = cast(VICRegNet, net)
        parts = torch.split(sample, _CHUNK)
        found = torch.cat([net(view(part, generator, each=True)) for part in parts])
        net.mean.copy_(found.mean(0))
        net.covariance.copy_(_covariance(found))


def _spread_loss(expanded: Tensor) -> Tensor:
    """(n, d) -> (): the variance term, which the paper halves, and the covariance term, of one half of the views."""
    deviation = (expanded.var(0, correction=0) + 1e-4).sqrt()
    common = _off_diagonal(_covariance(expanded)).square().sum() / _WIDTH
    return _VARIANCE * torch.relu(1 - deviation).mean() + 2 * _COVARIANCE * common


def _covariance(expanded: Tensor) -> Tensor:
    centred = expanded - expanded.mean(0)
    return centred.T @ centred / max(len(expanded) - 1, 1)


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix - matrix.diagonal().diag()

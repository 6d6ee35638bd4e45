"""Tell the order in which clips were shuffled."""

from functools import cache
from itertools import permutations
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.modalities.video import Video
from worker.modalities.video.backbones import VideoBackbone
from worker.pretext import PretextTask
from worker.pretext.projection import hidden, mlp

_WIDTH = 64


class OrderNet(nn.Module):
    """Videos (n, C, F, 3, s, s) -> logits (n, P, P): of each of the P = C! orders, by which of them it is."""

    def __init__(self, backbone: nn.Module, dimensions: int, clips: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(dimensions // 2, _WIDTH)
        self.head = mlp(clips * _WIDTH, hidden(dimensions), len(orders(clips)))

    def forward(self, batch: Tensor) -> Tensor:
        n, clips = batch.shape[:2]
        projected = self.projection(cast(VideoBackbone, self.backbone).with_clips(batch))
        known = orders(clips, batch.device)
        shuffled = projected[:, known]  # (n, P, C, 64)
        logits: Tensor = self.head(shuffled.flatten(0, 1).flatten(1)).view(n, len(known), -1)
        return logits.float()


class TemporalOrder(PretextTask):
    """Shuffle the clips of a video and tell by which permutation. An item's loss is the cross-entropy, the mean over
    all permutations. Where nothing moves there is no order, so a high loss may mean that a video is static: `facts` of
    the item say so, and `loss_rho_static` of the model how far its losses follow that.

    Xu et al. 2019, "Self-Supervised Spatiotemporal Learning via Video Clip Order Prediction" (VCOP),
    https://doi.org/10.1109/CVPR.2019.01058; of frames: Misra et al. 2016, "Shuffle and Learn",
    https://arxiv.org/abs/1603.08561.
    """

    name: ClassVar[str] = "temporal_order"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"video"})
    largest_batch: ClassVar[int | None] = 64

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return OrderNet(backbone, dimensions, cast(Video, modality).clips)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        logits = net(batch)
        asked = torch.arange(logits.shape[1], device=batch.device).expand(len(batch), -1)
        return functional.cross_entropy(logits.mT, asked, reduction="none").mean(1)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """Share of the orders that are told."""
        logits = net(batch)
        right = logits.argmax(2) == torch.arange(logits.shape[1], device=batch.device)
        return {"order_accuracy": right.float().mean().item()}


@cache
def orders(clips: int, device: torch.device | None = None) -> Tensor:
    """(C!, C)"""
    return torch.tensor(list(permutations(range(clips))), device=device)

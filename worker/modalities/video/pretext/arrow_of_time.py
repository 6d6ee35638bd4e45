"""Tell whether a video runs forwards or backwards."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.pretext import PretextTask


class ArrowNet(nn.Module):
    """Videos (n, C, F, 3, s, s) -> logits (n, 2): forwards, backwards."""

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dimensions, 2)

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(batch))
        return logits.float()


class ArrowOfTime(PretextTask):
    """Tell whether the clips of a video run forwards or backwards. An item's loss is the cross-entropy, the mean of
    both directions. It teaches nothing where what is filmed looks the same backwards (things that pass by, wheels,
    waves), and where nothing moves.

    Wei et al. 2018, "Learning and Using the Arrow of Time",
    https://www.robots.ox.ac.uk/~vgg/publications/2018/Wei18/wei18.pdf.
    """

    name: ClassVar[str] = "arrow_of_time"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"video"})
    largest_batch: ClassVar[int | None] = 64

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return ArrowNet(backbone, dimensions)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Both directions of all videos go through the network in one batch of 2n."""
        logits, backwards = _logits(net, batch)
        return functional.cross_entropy(logits, backwards, reduction="none").view(2, len(batch)).mean(0)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        logits, backwards = _logits(net, batch)
        return {"arrow_accuracy": (logits.argmax(1) == backwards).float().mean().item()}


def _logits(net: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    """(2n, 2) float32 logits and (2n,) whether backwards: all videos forwards, then all backwards."""
    backwards = torch.arange(2, device=batch.device).repeat_interleave(len(batch))
    return net(torch.cat([batch, batch.flip(2)])), backwards

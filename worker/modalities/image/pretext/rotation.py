"""Rotation: the angle that an image was turned by."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.pretext import PretextTask


class RotationNet(nn.Module):
    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dimensions, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


class Rotation(PretextTask):
    """Predict by which of 0, 90, 180 and 270 degrees an image was turned. An item's loss is the cross-entropy
    averaged over the four. It teaches nothing where nothing has a right way up (cells, textures).

    Yi et al. 2022, "PT4AL: Using Self-Supervised Pretext Tasks for Active Learning",
    https://arxiv.org/abs/2201.07459; the task: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728.
    """

    name: ClassVar[str] = "rotation"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"image"})

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return RotationNet(backbone, dimensions)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """The four views of all images go through the network in one batch of 4n."""
        logits, turns = _logits(net, batch)
        losses = functional.cross_entropy(logits, turns, reduction="none")
        return losses.view(4, len(batch)).mean(0)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        logits, turns = _logits(net, batch)
        return {"rotation_accuracy": (logits.argmax(1) == turns).float().mean().item()}


def _logits(net: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    """(4n, 4) float32 logits and (4n,) turns: all images unturned, then all turned by 90 degrees, …"""
    views = torch.cat([torch.rot90(batch, turn, (2, 3)) for turn in range(4)])
    views = views.contiguous(memory_format=torch.channels_last)
    turns = torch.arange(4, device=batch.device).repeat_interleave(len(batch))
    return net(views).float(), turns

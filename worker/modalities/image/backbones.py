"""Backbones: networks from item to embedding. `small` for small images on a CPU, or any timm model."""

import torch
from torch import Tensor, nn

from worker.modalities.residual_block import ResidualBlock
from worker.modalities.timm_networks import is_timm, make_timm, tried, unknown, without_weights


def make_backbone(name: str, pretrained: bool, image_size: int) -> tuple[nn.Module, int]:
    """The network, (n, 3, s, s) float -> (n, d) float, and d. Raises `BackboneUnusable`."""
    if name == "small":
        if pretrained:
            raise without_weights()
        return SmallBackbone(), SmallBackbone.dimensions
    if not is_timm(name):
        raise unknown(name)
    size = image_size, image_size
    shown = f"{image_size} x {image_size} pixels"
    return tried(name, pretrained, lambda: make_timm(name, pretrained, size), torch.zeros(1, 3, *size), shown)


class SmallBackbone(nn.Module):
    """A residual network for small images: 31 times the scoring rate of a ResNet-18 on a CPU.

    Stem 3x3 of stride 2, then 32, 64 and 128 channels, one block each. The embedding joins the pooled stages
    2 and 3, because networks trained on rotations know most about classes in the middle.
    """

    dimensions = 64 + 128
    layers = ("stage1", "stage2", "stage3")  # that embeddings may be taken from

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        )
        self.stage1 = ResidualBlock(32, 32, stride=1)
        self.stage2 = ResidualBlock(32, 64, stride=2)
        self.stage3 = ResidualBlock(64, 128, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of stages 2 and 3, (n, 64, h, w) and (n, 128, ⌈h/2⌉, ⌈w/2⌉). Named as in timm."""
        middle: Tensor = self.stage2(self.stage1(self.stem(images)))
        last: Tensor = self.stage3(middle)
        return middle, last

    def forward_head(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat([one.mean((2, 3)) for one in maps], 1)

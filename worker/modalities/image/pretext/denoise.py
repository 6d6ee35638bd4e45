"""Denoising: the image before noise was added."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from worker.modalities import Modality
from worker.modalities.image.pretext.decoder import PixelNet
from worker.pretext import PretextTask


class Denoise(PretextTask):
    """Paint an image without the noise that was added to it. An item's loss is the mean squared error of its
    pixels, its mean over several draws of noise.

    Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders",
    https://doi.org/10.1145/1390156.1390294.
    """

    name: ClassVar[str] = "denoise"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"image"})
    scoring_views: ClassVar[int] = 4

    noise: float = Field(
        1.0, gt=0, le=10, description="Standard deviation of the noise; that of ImageNet's pixels is 1."
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return PixelNet(
            backbone, dimensions, modality.item_shape[-1], channels=3, side=modality.item_shape[-1]
        )

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(batch) if net.training else 1, *batch.shape[1:])
        noise = torch.randn(shape, generator=generator, device=batch.device)
        painted: Tensor = net(batch + self.noise * noise)
        return (painted - batch).square().mean((1, 2, 3))

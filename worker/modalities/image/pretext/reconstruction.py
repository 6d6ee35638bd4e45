"""Masked reconstruction: the pixels behind the mask."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.modalities.image.pretext.decoder import PixelNet
from worker.pretext import PretextTask

# Patches a side, as 32-pixel patches of 224 pixels; the first that divides the side.
_GRIDS = (7, 8, 6, 9, 5, 10, 4)
_CHUNK = 64
_LEAST_VARIANCE = 1e-2  # of normalised floats; below it an image is flat


class ReconstructionNet(PixelNet):
    slope: Tensor
    level: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int, image_size: int) -> None:
        super().__init__(backbone, dimensions, image_size, channels=3, side=image_size)
        self.cover = nn.Parameter(torch.zeros(3, 1, 1))  # the colour of what is masked
        # How the logarithm of the loss rises with that of the variance, and the mean of the latter.
        self.register_buffer("slope", torch.zeros(()))
        self.register_buffer("level", torch.zeros(()))


class Reconstruction(PretextTask):
    """Paint what masked patches hide. An item's loss is the squared error of its masked pixels, their mean over
    several masks. It works with convolutional networks and transformers.

    Xie et al. 2022, "SimMIM: A Simple Framework for Masked Image Modeling", https://arxiv.org/abs/2111.09886;
    He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377.
    """

    name: ClassVar[str] = "reconstruction"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"image"})
    scoring_views: ClassVar[int] = 4

    masked: float = Field(0.6, gt=0, lt=1, description="Share of the patches that is masked.")
    regress_out_variance: bool = Field(
        False,
        description="Take out of the losses what follows from the variance of an item's pixels alone: "
        "busy pictures are hard to paint whatever they show.",
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return ReconstructionNet(backbone, dimensions, modality.item_shape[-1])

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(ReconstructionNet, net)
        errors = self._errors(net, batch, generator)
        return errors if net.training else errors * torch.exp(-net.slope * (_log_variance(batch) - net.level))

    @torch.no_grad()
    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        """The least squares line through log-losses over log-variances."""
        if not self.regress_out_variance:
            return
        net = cast(ReconstructionNet, net)
        losses = torch.cat([self._mean_errors(net, part) for part in torch.split(sample, _CHUNK)])
        x = _log_variance(sample)
        centred = x - x.mean()
        y = losses.clamp_min(1e-6).log()
        net.level.copy_(x.mean())
        net.slope.copy_((centred * y).sum() / (centred**2).sum().clamp_min(1e-6))

    def _mean_errors(self, net: ReconstructionNet, batch: Tensor) -> Tensor:
        """(n,) as the scorer takes their mean."""
        seeded = [torch.Generator(batch.device).manual_seed(seed) for seed in range(self.scoring_views)]
        return torch.stack([self._errors(net, batch, generator) for generator in seeded]).mean(0)

    def _errors(self, net: ReconstructionNet, batch: Tensor, generator: torch.Generator) -> Tensor:
        """(n,) the mean squared error of the masked pixels."""
        mask = self.masks(len(batch) if net.training else 1, batch.shape[-1], generator)
        painted = net(torch.where(mask, net.cover, batch))
        errors: Tensor = ((painted - batch).square() * mask).sum((1, 2, 3))
        return errors / (mask.sum((1, 2, 3)) * batch.shape[1])

    def masks(self, rows: int, size: int, generator: torch.Generator) -> Tensor:
        """(rows, 1, size, size) bool, true where masked: the same number of patches in each."""
        grid = min(next((one for one in _GRIDS if size % one == 0), _GRIDS[0]), size)
        hidden = min(max(round(self.masked * grid**2), 1), grid**2 - 1)
        order = torch.rand((rows, grid**2), generator=generator, device=generator.device).argsort(1)
        patches = torch.zeros_like(order, dtype=torch.float32).scatter_(1, order[:, :hidden], 1)
        return functional.interpolate(patches.view(rows, 1, grid, grid), (size, size)) > 0.5


def _log_variance(batch: Tensor) -> Tensor:
    return (batch.var((1, 2, 3), correction=0) + _LEAST_VARIANCE).log()

"""Colorization: colours predicted from brightness."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.device import constant
from worker.modalities import Modality
from worker.modalities.image.pretext.decoder import PixelNet
from worker.modalities.image.views import brightness_of, from_colours, to_colours
from worker.pretext import PretextTask

_SCALE = 4  # colours are guessed at a quarter of the side: they change less than brightness does
_HALF = 7
_BINS = 2 * _HALF + 1  # grey has a bin of its own, in the middle
_RANGES = (1.772, 1.402)  # of blue and red less the brightness (ITU-R BT.601)


class Colorization(PretextTask):
    """Guess the colours of an image from its brightness. An item's loss is the cross-entropy over 15 bins of its
    blueness and redness, its mean over the places of the image. It teaches nothing where the pool is grey.

    Zhang et al. 2016, "Colorful Image Colorization", https://arxiv.org/abs/1603.08511; two histograms a place as
    in Larsson et al. 2017, "Colorization as a Proxy Task for Visual Understanding",
    https://arxiv.org/abs/1703.04044.
    """

    name: ClassVar[str] = "colorization"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"image"})

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        side = max(modality.item_shape[-1] // _SCALE, 1)
        return PixelNet(backbone, dimensions, modality.item_shape[-1], channels=2 * _BINS, side=side)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        colours = to_colours(batch)
        grey = from_colours(brightness_of(colours).expand_as(batch))
        logits = net(grey.contiguous(memory_format=torch.channels_last))
        bins = colour_bins(functional.adaptive_avg_pool2d(colours, logits.shape[-1]))
        losses = functional.cross_entropy(logits.unflatten(1, (_BINS, 2)), bins, reduction="none")
        return losses.mean((1, 2, 3))


def colour_bins(colours: Tensor) -> Tensor:
    """(n, 3, h, w) in 0..1 -> (n, 2, h, w) int64: bins of blueness and redness, finer where colours are pale."""
    brightness = brightness_of(colours)
    differences = torch.cat([colours[:, 2:] - brightness, colours[:, :1] - brightness], 1)
    ranges = constant(_RANGES, colours.device).view(1, 2, 1, 1)
    shares = (2 * differences / ranges).clamp(-1, 1)
    return (_HALF * shares.sign() * shares.abs().sqrt()).round().long() + _HALF

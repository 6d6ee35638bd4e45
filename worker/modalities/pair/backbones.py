"""Backbones of pairs: one of images, one of texts, their embeddings joined."""

import difflib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import BackboneUnusable, Modality

_NAMES = ("small",)


def make_backbone(name: str, pretrained: bool, image: Modality, text: Modality) -> tuple[nn.Module, int]:
    """The network, prepared pairs -> (n, d) float, and d. Raises `BackboneUnusable`."""
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.4)
        raise BackboneUnusable(
            f"There is no backbone {name!r} for pairs. {'Close' if close else 'There is'}: {', '.join(_NAMES)}."
        )
    if pretrained:
        raise BackboneUnusable("The backbone `small` has no pretrained weights: unset `pretrained`.")
    net = PairBackbone(image, text)
    return net, net.dimensions


class PairBackbone(nn.Module):
    """The small networks of images and of texts. A pair's embedding is both of theirs, each with mean 0 and variance 1
    over its dimensions, so that none of them outweighs the other.
    """

    def __init__(self, image: Modality, text: Modality) -> None:
        super().__init__()
        self.side = image.item_shape[-1]
        self.image, of_image = image.make_backbone("small", False)
        self.text, of_text = text.make_backbone("small", False)
        self.widths = (of_image, of_text)
        self.dimensions = of_image + of_text

    def forward(self, batch: Tensor) -> Tensor:
        """Prepared pairs (n, 3 s² + L) -> (n, d)."""
        pixels = math.prod((3, self.side, self.side))
        images = batch[:, :pixels].reshape(-1, 3, self.side, self.side)
        both = (
            self.image(images.contiguous(memory_format=torch.channels_last)),
            self.text(batch[:, pixels:].long()),
        )
        return torch.cat(
            [
                functional.layer_norm(one.float(), (width,))
                for one, width in zip(both, self.widths, strict=True)
            ],
            1,
        )

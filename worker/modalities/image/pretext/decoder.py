"""From a backbone to values at every pixel, whatever the backbone: one linear layer on its last feature map.

As in SimMIM (Xie et al. 2022, https://arxiv.org/abs/2111.09886), which finds a heavier decoder no better. The
embedding, which is what the product uses, is added to every place of the map, so that it learns too.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class PixelNet(nn.Module):
    """Images (n, 3, s, s) -> (n, channels, side, side)."""

    def __init__(
        self, backbone: nn.Module, dimensions: int, image_size: int, channels: int, side: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.side = side
        training = backbone.training
        with torch.no_grad():
            places, _ = map_and_embedding(backbone.eval(), torch.zeros(1, 3, image_size, image_size))
        backbone.train(training)
        stride = math.ceil(side / min(places.shape[2:]))
        self.context = nn.Linear(dimensions, places.shape[1])
        self.pixels = nn.Sequential(
            nn.Conv2d(places.shape[1], channels * stride**2, 1), nn.PixelShuffle(stride)
        )

    def forward(self, images: Tensor) -> Tensor:
        n = len(images)
        if n == 1 and self.training:  # batch norm needs two values, and the last map may be 1 x 1
            images = images.expand(2, -1, -1, -1)
        places, embedding = map_and_embedding(self.backbone, images)
        values: Tensor = self.pixels(places + self.context(embedding)[:, :, None, None])
        if values.shape[2:] != (self.side, self.side):
            values = functional.interpolate(values, (self.side, self.side), mode="bilinear")
        return values[:n].float()


def map_and_embedding(backbone: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(n, c, h, w) and (n, d), in one pass. A backbone that shows no map gives its embedding as one of 1 x 1."""
    if not hasattr(backbone, "forward_features"):
        embedding = backbone(images)
        return embedding[:, :, None, None], embedding
    features = backbone.forward_features(images)  # type: ignore[operator]
    embedding = backbone.forward_head(features)  # type: ignore[operator]
    last = features[-1] if isinstance(features, tuple) else features
    if last.ndim == 3:  # tokens (n, prefix + h·w, c)
        last = last[:, getattr(backbone, "num_prefix_tokens", 0) :]
        side = math.isqrt(last.shape[1])
        last = last[:, last.shape[1] - side**2 :]  # less prefix tokens that the backbone does not tell of
        last = last.unflatten(1, (side, side))
    elif getattr(backbone, "output_fmt", None) != "NHWC":
        return last, embedding
    return last.permute(0, 3, 1, 2), embedding

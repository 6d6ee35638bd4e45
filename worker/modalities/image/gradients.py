"""What edges and coarse colours say of a picture: no network, nothing learned."""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, normalize

SIDE = 32  # pixels that are looked at
_CELL, _BINS, _THUMBNAIL = 4, 9, 8
_AT_ONCE = 256


def gradients(pixels: Tensor) -> Tensor:
    """(n, 3, s, s) uint8 -> (n, d) float32: histograms of oriented gradients (HOG) and a thumbnail, each of unit
    length, joined to one.

    Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177; at 32 pixels, with blocks of 2 x 2 cells.
    """
    return torch.cat([_features(part.float() / 255) for part in torch.split(pixels, _AT_ONCE)])


def _features(images: Tensor) -> Tensor:
    images = interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    thumbnail = adaptive_avg_pool2d(images, _THUMBNAIL).flatten(1)
    edges = _blocks(_cells(images.mean(dim=1))).flatten(1)
    return torch.cat([normalize(edges), normalize(thumbnail)], dim=1) / 2**0.5


def _cells(grey: Tensor) -> Tensor:
    """(n, s, s) -> (n, bins, s / cell, s / cell): the gradients' lengths by their direction, opposite ones alike."""
    down, right = torch.gradient(grey, dim=(1, 2))
    length, angle = torch.hypot(down, right), torch.atan2(down, right) % math.pi
    place = angle * (_BINS / math.pi)
    lower = place.floor()
    share = place - lower
    votes = torch.zeros((len(grey), _BINS, SIDE, SIDE))
    for offset, part in ((0, 1 - share), (1, share)):
        bins = ((lower.long() + offset) % _BINS)[:, None]
        votes.scatter_add_(1, bins, (length * part)[:, None])
    return avg_pool2d(votes, _CELL)


def _blocks(cells: Tensor) -> Tensor:
    """(n, b, k, k) -> (n, 4b, k/2, k/2), each block of unit length where there is any edge."""
    n, bins, k, _ = cells.shape
    blocks = (
        cells.reshape(n, bins, k // 2, 2, k // 2, 2)
        .permute(0, 1, 3, 5, 2, 4)
        .reshape(n, 4 * bins, k // 2, k // 2)
    )
    unit: Tensor = blocks / (blocks.norm(dim=1, keepdim=True) + 0.05)
    return unit

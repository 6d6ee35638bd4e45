"""Edges and coarse colours of pictures: no network, nothing learned."""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, normalize

SIDE = 32  # pixels that are looked at
_CELL, _BINS, _THUMBNAIL = 4, 9, 8
_AT_ONCE = 256


def gradients(pixels: Tensor) -> Tensor:
    """(n, 3, s, s) uint8 -> (n, d) float32: `edges`, and a thumbnail, whose levels run from -0.5 to 0.5 over the root
    of their number: so it is half as long as the edges where it is all white or black. As long, it gained less on four
    pools for development (docs/decisions/0020-a-provisional-ranking.md).
    """
    found = []
    for part in torch.split(pixels, _AT_ONCE):
        images = small(part)
        levels = thumbnail(images) - 0.5
        found.append(torch.cat([edges(images), levels / levels.shape[1] ** 0.5], dim=1))
    return torch.cat(found)


def small(pixels: Tensor) -> Tensor:
    """(n, 3, s, s) uint8 -> (n, 3, 32, 32) float32 from 0 to 1"""
    return interpolate(
        pixels.float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
    )


def thumbnail(images: Tensor) -> Tensor:
    """(n, 3, s, s) -> (n, 192)"""
    return adaptive_avg_pool2d(images, _THUMBNAIL).flatten(1)


def edges(images: Tensor) -> Tensor:
    """Histograms of oriented gradients (HOG), in blocks of 2 x 2 cells: (n, 3, 32, 32) -> (n, 576) of length 1.

    Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177
    """
    return normalize(_blocks(_cells(images.mean(dim=1))).flatten(1))


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

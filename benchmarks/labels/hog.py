"""Judge `hog`: what edges and coarse colours say of a picture. No network, nothing learned."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, normalize

from benchmarks.labels.pools import Pixels
from worker.arrays import Halves

_SIDE, _CELL, _BINS, _THUMBNAIL = 32, 4, 9, 8
_AT_ONCE = 256


def hog(pixels: Pixels) -> Halves:
    """(n, 3, s, s) -> (n, d): histograms of oriented gradients and a thumbnail, each of unit length, joined to one.

    Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177; at 32 pixels, with blocks of 2 x 2 cells.
    """
    parts = torch.split(torch.from_numpy(pixels), _AT_ONCE)
    found: Halves = torch.cat([_features(part.float() / 255) for part in parts]).half().numpy()
    return found


def _features(images: Tensor) -> Tensor:
    images = interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
    thumbnail = adaptive_avg_pool2d(images, _THUMBNAIL).flatten(1)
    edges = _blocks(_cells(images.mean(dim=1))).flatten(1)
    return torch.cat([normalize(edges), normalize(thumbnail)], dim=1) / 2**0.5


def _cells(grey: Tensor) -> Tensor:
    """(n, s, s) -> (n, bins, s / cell, s / cell): the gradients' lengths by their direction, opposite ones alike."""
    down, right = torch.gradient(grey, dim=(1, 2))
    length, angle = torch.hypot(down, right), torch.atan2(down, right) % np.pi
    place = angle * (_BINS / np.pi)
    lower = place.floor()
    share = place - lower
    votes = torch.zeros((len(grey), _BINS, _SIDE, _SIDE))
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

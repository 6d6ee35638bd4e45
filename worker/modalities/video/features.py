"""Raw features of videos: what their frames look like, and where and when something moves."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from worker.arrays import Floats
from worker.modalities.video.clips import grey, motion

_CELLS = 4  # a side


def raw_features(items: Iterable[Tensor]) -> Floats:
    """Parts (m, C, F, 3, s, s) as decoded -> (n, p) float32: by cell of a 4 x 4 grid the mean colours, the deviation of
    brightness over time, and of each clip the motion energy; and the motion energy of all, by step.
    """
    parts = [_statistics(part) for part in items]
    return torch.cat(parts).numpy() if parts else np.empty((0, 0), np.float32)


def _statistics(items: Tensor) -> Tensor:
    n, clips, frames = items.shape[:3]
    energy = motion(items)
    return torch.cat(
        [
            _by_cell(items.float().mean((1, 2))),
            _by_cell(grey(items).flatten(1, 2).std(1, correction=0, keepdim=True)),
            _by_cell(energy.mean(2)),
            energy.mean((3, 4)).reshape(n, clips * (frames - 1)),
        ],
        1,
    )


def _by_cell(maps: Tensor) -> Tensor:
    """(n, c, s, s) -> (n, c · 16)"""
    return adaptive_avg_pool2d(maps, _CELLS).flatten(1)

"""Raw features of recordings: how loud each band is, how much it varies, and how fast."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from worker.arrays import Floats
from worker.modalities.audio.spectrograms import BANDS, prepared, there


def raw_features(items: Iterable[Tensor]) -> Floats:
    """Parts (m, W, 64, T) as decoded -> (n, 192) float32: of each band the mean, the standard deviation, and the mean
    change from frame to frame.
    """
    parts = [_statistics(part) for part in items]
    return torch.cat(parts).numpy() if parts else np.empty((0, 3 * BANDS), np.float32)


def _statistics(items: Tensor) -> Tensor:
    values, shown = prepared(items), there(items).float()[:, :, None]
    count = shown.sum((1, 3)).clamp_min(1)
    mean = (values * shown).sum((1, 3)) / count
    deviation = (((values - mean[:, None, :, None]) * shown).square().sum((1, 3)) / count).sqrt()
    both = shown[..., 1:] * shown[..., :-1]
    change = ((values[..., 1:] - values[..., :-1]).abs() * both).sum((1, 3)) / both.sum((1, 3)).clamp_min(1)
    return torch.cat([mean, deviation, change], 1)

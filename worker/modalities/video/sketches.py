"""Sketches of videos: a storyboard of tiny pictures, small enough to keep one of every item.

A video that was encoded again, at another rate or size, has the same pictures at the same times.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Sketcher
from worker.modalities.video.clips import grey

_SIDE = 8
_COARSE = 4
_ROWS = 4_096
_LIGHT, _NOISE = 3.0, 4.0  # of 255
# Of the colour differences, as ITU-R BT.601 has them.
_CHROMA = ((-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))


class Storyboard(Sketcher):
    """A sketch is the brightness of the first and the middle frame of each clip, 8 x 8 each, and the mean of both
    colour differences.
    """

    def sketch(self, items: Tensor) -> Bytes:
        """(n, C, F, 3, s, s) as decoded -> (n, C · 2 · 64 + 2) uint8."""
        moments = items[:, :, [0, items.shape[2] // 2]]
        small = adaptive_avg_pool2d(grey(moments).flatten(1, 2), _SIDE).flatten(1)
        chroma = torch.einsum("ck,nk->nc", torch.tensor(_CHROMA), moments.float().mean((1, 2, 4, 5))) + 128
        return torch.cat([small, chroma], 1).round().clamp(0, 255).to(torch.uint8).numpy()

    def places(self, sketches: Bytes) -> Floats:
        """(n, f) -> (n, C · 2 · 16) float32: the pictures at 4 x 4, so that what is moved a little stays near."""
        half = _SIDE // _COARSE
        levels = sketches[:, :-2].reshape(len(sketches), -1, _COARSE, half, _COARSE, half).astype(np.float32)
        found: Floats = levels.mean(axis=(3, 5)).reshape(len(sketches), -1)
        return found

    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """Root mean square of the brightness, or the difference of the mean colours, where that is larger: (m,) and
        (m, k) rows of sketches -> (m, k) float32.
        """
        found = np.empty(others.shape, np.float32)
        for start in range(0, len(first), _ROWS):
            part = slice(start, start + _ROWS)
            apart = sketches[first[part], None].astype(np.float32) - sketches[others[part]]
            brightness = np.sqrt(np.square(apart[..., :-2]).mean(axis=2))
            found[part] = np.maximum(brightness, np.abs(apart[..., -2:]).max(axis=2))
        return found

    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """As decoded, in and out: each video a little lighter or darker, with noise of its own in each frame, as codecs
        make it.
        """
        n, clips, frames, _, side, _ = items.shape
        light = _LIGHT * (2 * torch.rand((n, 1, 1, 1, 1, 1), generator=generator) - 1)
        noise = torch.randn((n, clips, frames, 1, side, side), generator=generator) * _NOISE
        return (items + light + noise).round().clamp(0, 255).to(torch.uint8)

    def appearance(self, sketches: Bytes) -> Bytes:
        return sketches

"""Backbones of recordings: networks from log-mel spectrograms to an embedding."""

import difflib

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import BackboneUnusable
from worker.modalities.audio.spectrograms import heard
from worker.modalities.residual_block import ResidualBlock

_NAMES = ("small",)
_SILENCE = -2.0  # what convolutions see where there is no frame
_PARTS = 4  # of the pitches, which the embedding keeps apart


def make_backbone(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    """The network, (n, W, 64, T) as prepared -> (n, d) float, and d. Raises `BackboneUnusable`."""
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.4)
        raise BackboneUnusable(
            f"There is no backbone {name!r} for recordings. {'Close' if close else 'There is'}: {', '.join(_NAMES)}."
        )
    if pretrained:
        raise BackboneUnusable("The backbone `small` has no pretrained weights: unset `pretrained`.")
    return SmallAudioBackbone(), SmallAudioBackbone.dimensions


class SmallAudioBackbone(nn.Module):
    """A residual network over spectrograms that trains in minutes on a CPU. Stem 3x3 of stride 2, then 24, 48 and 96
    channels, one block each. Each window of a recording goes through it; the embedding is the mean over the frames of
    all, of the last two stages, low and high pitches apart: a pitch is no place that a pattern may move to.
    """

    dimensions = _PARTS * (48 + 96)
    channels = 96
    stride = 8  # of the last map

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        self.stage1 = ResidualBlock(24, 24, stride=1)
        self.stage2 = ResidualBlock(24, 48, stride=2)
        self.stage3 = ResidualBlock(48, 96, stride=2)

    def forward(self, batch: Tensor) -> Tensor:
        """(n, W, 64, T) as prepared -> (n, d)."""
        embedding: Tensor = self.maps(batch)[1]
        return embedding

    def maps(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last map of each window that is there (k, 96, 8, T/8); the embeddings (n, d); and the windows (k,), as
        places in n·W.
        """
        n, windows, bands, frames = batch.shape
        shown = heard(batch).view(n * windows, frames)
        rows = shown.any(1).nonzero()[:, 0]
        shown = shown[rows]
        values = batch.view(n * windows, 1, bands, frames)[rows]
        values = values.where(shown[:, None, None], _SILENCE)
        middle = self.stage2(self.stage1(self.stem(values)))
        last = self.stage3(middle)
        found = torch.cat([_sums(middle, shown), _sums(last, shown)], 1)
        weights = shown.sum(1, dtype=found.dtype)
        owner = torch.div(rows, windows, rounding_mode="floor")
        totals = found.new_zeros((n, found.shape[1])).index_add(0, owner, found * weights[:, None])
        counts = weights.new_zeros(n).index_add(0, owner, weights)
        return last, totals / counts.clamp_min(1)[:, None], rows


def _sums(maps: Tensor, shown: Tensor) -> Tensor:
    """(k, c, h, w) and frames (k, T) -> (k, c · parts): the mean over the columns with any frame."""
    width = maps.shape[3]
    columns = functional.adaptive_max_pool1d(shown[:, None].float(), width)[:, 0].to(maps.dtype)
    bands = maps.view(*maps.shape[:2], _PARTS, maps.shape[2] // _PARTS, width).mean(3)
    sums = (bands * columns[:, None, None]).sum(3)
    found: Tensor = sums / columns.sum(1)[:, None, None].clamp_min(1)
    return found.flatten(1)

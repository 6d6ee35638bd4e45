"""Backbones of recordings: networks from log-mel spectrograms to an embedding."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities.audio.spectrograms import BANDS, heard
from worker.modalities.residual_block import ResidualBlock
from worker.modalities.timm_networks import is_timm, make_timm, tried, unknown, without_weights

_SILENCE = -2.0  # what convolutions see where there is no frame
_PARTS = 4  # of the pitches, which the embedding of `small` keeps apart
_MULTIPLE = (
    32  # of frames: by so much networks of timm shrink a spectrogram at most, and transformers cut it in 16s
)


def make_backbone(name: str, pretrained: bool, frames: int) -> tuple[nn.Module, int]:
    """The network, (n, W, 64, frames) as prepared -> (n, d) float, and d. Raises `BackboneUnusable`."""
    if name == "small":
        if pretrained:
            raise without_weights()
        return SmallAudioBackbone(), SmallAudioBackbone.dimensions
    if not is_timm(name):
        raise unknown(name)
    return tried(
        name,
        pretrained,
        lambda: TimmAudioBackbone(name, pretrained, frames),
        torch.zeros(1, 1, BANDS, frames),
        f"spectrograms of {BANDS} bands x {frames} frames",
    )


class AudioBackbone(nn.Module, ABC):
    """A network over spectrograms. Each window of a recording that is there goes through it; the recording's embedding
    is the mean over its windows, by how many frames each has.

    dimensions  of the embedding
    channels    of the last map
    stride      bands, and frames, that a place of the last map stands for
    """

    dimensions: int
    channels: int
    stride: int

    @abstractmethod
    def of_windows(self, windows: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (k, 1, 64, T) and the frames of each that are there (k, T) bool -> the last map (k, channels, h, w)
        and the embeddings (k, dimensions), the mean over these frames.
        """

    def forward(self, batch: Tensor) -> Tensor:
        """(n, W, 64, T) as prepared -> (n, d)."""
        embedding: Tensor = self.maps(batch)[1]
        return embedding

    def maps(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last map of each window that is there (k, channels, h, w); the embeddings (n, d); and the windows (k,),
        as places in n·W.
        """
        n, windows, bands, frames = batch.shape
        shown = heard(batch).view(n * windows, frames)
        rows = shown.any(1).nonzero()[:, 0]
        shown = shown[rows]
        values = batch.view(n * windows, 1, bands, frames)[rows]
        last, found = self.of_windows(values.where(shown[:, None, None], _SILENCE), shown)
        weights = shown.sum(1, dtype=found.dtype)
        owner = torch.div(rows, windows, rounding_mode="floor")
        totals = found.new_zeros((n, found.shape[1])).index_add(0, owner, found * weights[:, None])
        counts = weights.new_zeros(n).index_add(0, owner, weights)
        return last, totals / counts.clamp_min(1)[:, None], rows


class SmallAudioBackbone(AudioBackbone):
    """A residual network over spectrograms that trains in minutes on a CPU. Stem 3x3 of stride 2, then 24, 48 and 96
    channels, one block each. Each window of a recording goes through it; the embedding is the mean over the frames of
    all, of the last two stages, low and high pitches apart: a pitch is no place that a pattern may move to.
    """

    dimensions = _PARTS * (48 + 96)
    channels = 96
    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        self.stage1 = ResidualBlock(24, 24, stride=1)
        self.stage2 = ResidualBlock(24, 48, stride=2)
        self.stage3 = ResidualBlock(48, 96, stride=2)

    def of_windows(self, windows: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.stage2(self.stage1(self.stem(windows)))
        last = self.stage3(middle)
        return last, torch.cat([_means(one, shown, _PARTS).flatten(1) for one in (middle, last)], 1)


class TimmAudioBackbone(AudioBackbone):
    """A model of timm over spectrograms of one channel. What it makes of a window is pooled over the frames that are
    there, and then goes through its own last norm, as pictures do; where a class token stands for a picture, it is the
    embedding. A vision transformer is so what AST is, but for the overlap of its patches; as there, the weights to
    begin with may be those of ImageNet, of whose three colours the sum is taken.

    Gong et al. 2021, AST: Audio Spectrogram Transformer, https://arxiv.org/abs/2104.01778.
    """

    def __init__(self, name: str, pretrained: bool, frames: int) -> None:
        super().__init__()
        length = -(-frames // _MULTIPLE) * _MULTIPLE
        self.network: Any = make_timm(name, pretrained, (BANDS, length), channels=1)
        self.prefix_tokens = int(getattr(self.network, "num_prefix_tokens", 0))
        self.channels_last = False
        self.eval()  # so that looking changes no statistics
        with torch.no_grad():
            found = self._features(torch.zeros(1, 1, BANDS, length))
            if found.ndim == 3:
                places, self.channels = found.shape[1] - self.prefix_tokens, found.shape[2]
                self.stride = round((BANDS * length / places) ** 0.5)
            else:
                self.channels_last = found.shape[1] != self.network.num_features
                self.channels = found.shape[3 if self.channels_last else 1]
                self.stride = BANDS // found.shape[1 if self.channels_last else 2]
            last, embeddings = self.of_windows(
                torch.zeros(1, 1, BANDS, length), torch.ones(1, length, dtype=torch.bool)
            )
        self.dimensions = embeddings.shape[1]
        if last.shape[2] * self.stride != BANDS or last.shape[3] * self.stride != length:
            raise ValueError(f"a place of its last map is no square, {tuple(last.shape[2:])}")

    def of_windows(self, windows: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        missing = -windows.shape[3] % _MULTIPLE
        shown = functional.pad(shown, (0, missing))
        found = self._features(functional.pad(windows, (0, missing), value=_SILENCE))
        if found.ndim == 3:
            tokens = found[:, self.prefix_tokens :].mT
            last = tokens.reshape(*tokens.shape[:2], BANDS // self.stride, -1)
            pooled = torch.cat([found[:, : self.prefix_tokens], _means(last, shown, 1).mT], 1)
        else:
            last = found.permute(0, 3, 1, 2) if self.channels_last else found
            pooled = _means(last, shown, 1)[..., None]
            pooled = pooled.permute(0, 2, 3, 1) if self.channels_last else pooled
        embeddings: Tensor = self.network.forward_head(pooled)
        return last, embeddings

    def _features(self, windows: Tensor) -> Tensor:
        """Tokens (k, places, c), or a map (k, c, h, w) or (k, h, w, c)."""
        found: Tensor = self.network.forward_features(windows)
        return found


def _means(maps: Tensor, shown: Tensor, parts: int) -> Tensor:
    """(k, c, h, w) and frames (k, T) -> (k, c, parts): the mean over the columns with any frame, by part of the
    height.
    """
    width = maps.shape[3]
    columns = functional.adaptive_max_pool1d(shown[:, None].float(), width)[:, 0].to(maps.dtype)
    bands = maps.reshape(*maps.shape[:2], parts, maps.shape[2] // parts, width).mean(3)
    sums = (bands * columns[:, None, None]).sum(3)
    found: Tensor = sums / columns.sum(1)[:, None, None].clamp_min(1)
    return found

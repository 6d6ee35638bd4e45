"""Guess the masked parts of a spectrogram."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.modalities.audio.backbones import AudioBackbone
from worker.modalities.audio.spectrograms import heard
from worker.pretext import PretextTask

_PATCH = (16, 8)  # bands, frames
_SHARES = (0.75, 1.25)  # of the share that is masked, while training


class MaskedSpectrogramNet(nn.Module):
    """Spectrograms (n, W, 64, T) -> (n, W, 64, T), guessed: one linear layer on the backbone's last map, to every place
    of which the embedding is added (as SimMIM, Xie et al. 2022, https://arxiv.org/abs/2111.09886).
    """

    def __init__(self, backbone: nn.Module, dimensions: int, modality: Modality) -> None:
        super().__init__()
        self.backbone = backbone
        self.modality = modality
        known = cast(AudioBackbone, backbone)
        self.cover = nn.Parameter(torch.zeros(64, 1))  # of what is masked, by band
        self.context = nn.Linear(dimensions, known.channels)
        self.values = nn.Sequential(
            nn.Conv2d(known.channels, known.stride**2, 1), nn.PixelShuffle(known.stride)
        )

    def forward(self, batch: Tensor) -> Tensor:
        n, windows, bands, frames = batch.shape
        maps, embeddings, rows = cast(AudioBackbone, self.backbone).maps(batch)
        owner = torch.div(rows, windows, rounding_mode="floor")
        guessed = self.values(maps + self.context(embeddings)[owner][:, :, None, None])[:, 0].float()
        found = guessed.new_zeros((n * windows, bands, frames)).index_copy(0, rows, guessed[..., :frames])
        values: Tensor = found.view(batch.shape)
        return values


class MaskedSpectrogram(PretextTask):
    """Guess masked patches of a recording's log-mel spectrogram from the sound around them. An item's loss is the
    squared error of what is masked, in units of 16 dB, its mean over several masks and over the recording's windows, so
    that long recordings have no higher losses than short ones.

    Huang et al. 2022, "Masked Autoencoders that Listen" (AudioMAE), https://arxiv.org/abs/2207.06405.
    """

    name: ClassVar[str] = "masked_spectrogram"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"audio"})
    scoring_views: ClassVar[int] = 4

    masked: float = Field(0.6, gt=0, lt=1, description="Share of a recording's patches that is masked.")

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return MaskedSpectrogramNet(backbone, dimensions, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(MaskedSpectrogramNet, net)
        shown = heard(batch)[:, :, None]
        mask = self.masks(batch, generator, each=net.training) & shown
        guessed = net(torch.where(mask, net.cover, batch))
        errors = (guessed - batch).square() * mask
        losses: Tensor = errors.sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
        return losses

    def masks(self, batch: Tensor, generator: torch.Generator, *, each: bool) -> Tensor:
        """(n, W, 64, T) bool, true where masked: the patches of a recording whose random numbers are lowest.

        each: one set of numbers an item, and its own share, from 3/4 to 5/4 of `masked`; else one for the whole
        batch, so that what is masked of a recording follows from its length and the generator alone.
        """
        n, windows, bands, frames = batch.shape
        high, wide = bands // _PATCH[0], -(-frames // _PATCH[1])
        rows = n if each else 1
        draw = torch.rand((rows, windows * high * wide + 1), generator=generator, device=batch.device)
        low, most = _SHARES if each else (1.0, 1.0)
        columns = functional.pad(heard(batch), (0, wide * _PATCH[1] - frames))
        there = columns.view(n, windows, wide, _PATCH[1]).any(3)[:, :, None].expand(-1, -1, high, -1)
        there = there.reshape(n, -1)
        share = (self.masked * (low + (most - low) * draw[:, 0])).clamp_max(0.95)
        count = (share * there.sum(1)).round().clamp_min(1)
        order = draw[:, 1:].expand(there.shape).masked_fill(~there, 2.0)
        rank = order.argsort(stable=True, dim=1).argsort(1)
        hidden = ((rank < count[:, None]) & there).view(n, windows, high, wide)
        return hidden.repeat_interleave(_PATCH[0], 2).repeat_interleave(_PATCH[1], 3)[..., :frames]

"""Views of recordings: a part of each window, a little faster or slower, higher or lower, with gaps."""

import math

import torch
from torch import Tensor

from worker.modalities.audio.spectrograms import ABSENT, heard, kept_apart

_TEMPO = 0.5  # share by which it is faster or slower, at strength 1
_PITCH = 8.0  # bands up or down
_TILT = 2.0  # of the spectrum from its lowest to its highest band, in units of 16 dB
_GAP = 0.5  # of the frames, and of the bands, that are silenced at most
_LEAST = 4  # frames that are left


def view(
    batch: Tensor,
    generator: torch.Generator,
    *,
    each: bool,
    strength: float = 0.5,
    share: tuple[float, float] = (0.2, 1.0),
) -> Tensor:
    """A random view of each recording: (n, W, 64, T) as prepared, in and out.

    each      one set of random numbers an item; else one for the whole batch, so that an item's view does not
              depend on its batch
    strength  of the change
    share     as of the area of a picture: a view shows the square root of it in time

    Crops and changes of tempo and pitch: BYOL-A (Niizumi et al. 2021, https://arxiv.org/abs/2103.06695); gaps in time
    and frequency: SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779). Loudness is taken out already; a
    tilt is what microphones and rooms do.
    """
    n, windows, bands, length = batch.shape
    draw = torch.rand((n if each else 1, 8), generator=generator, device=batch.device).expand(n, 8)
    frames = heard(batch).sum(2)  # (n, W)
    low, high = math.sqrt(share[0]), math.sqrt(share[1])
    covered = ((low + (high - low) * draw[:, :1]) * frames).round().clamp_min(_LEAST).minimum(frames)
    start = (draw[:, 1:2] * (frames - covered + 1)).floor()
    tempo = (1 + _TEMPO * strength * (2 * draw[:, 2:3] - 1))[:, :, None]
    place = torch.arange(length, device=batch.device)
    offset = (place * tempo).floor()  # (n, 1, T)
    inside = offset < covered[:, :, None]
    inside[:, :, 0] |= frames > 0
    at = (start[:, :, None] + offset).clamp(0, length - 1).long()

    shift = (_PITCH * strength * (2 * draw[:, 3] - 1)).round().long()
    band = (torch.arange(bands, device=batch.device) + shift[:, None]).clamp(0, bands - 1)
    moved = batch.gather(2, band[:, None, :, None].expand(-1, windows, -1, length))
    moved = moved.gather(3, at[:, :, None].expand(-1, -1, bands, -1))
    tilt = _TILT * strength * (2 * draw[:, 4] - 1)
    moved = moved + tilt[:, None, None, None] * torch.linspace(-0.5, 0.5, bands, device=batch.device)[:, None]

    seen = inside.sum(2, keepdim=True)  # (n, W, 1)
    gap = _GAP * strength
    silent = _gap(place, seen * gap * draw[:, 5, None, None], seen, draw[:, 6, None, None])[:, :, None]
    deaf = _gap(
        torch.arange(bands, device=batch.device),
        bands * gap * (1 - draw[:, 5, None]),
        bands,
        draw[:, 7, None],
    )
    moved = moved.masked_fill(silent | deaf[:, None, :, None], 0.0)
    return kept_apart(moved).where(inside[:, :, None], ABSENT)


def _gap(place: Tensor, width: Tensor, whole: Tensor | int, draw: Tensor) -> Tensor:
    """True inside a gap of that width, somewhere in the whole."""
    begin = draw * (whole - width)
    return (place >= begin) & (place < begin + width)

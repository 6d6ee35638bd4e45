"""Sketches of recordings: a coarse picture of the sound, small enough to keep one of every item.

As fingerprints of recordings are, it is made of the energies of a few bands over time (Haitsma and Kalker 2002, "A
Highly Robust Audio Fingerprinting System"); levels are kept instead of bits, as recordings may be as short as a word.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Sketcher
from worker.modalities.audio.spectrograms import there

_BANDS, _SLOTS = 16, 24
_REACH = 1  # slots that two copies may be apart
_PER_OCTAVE = 16  # of durations
_ROWS = 4_096
_NOISE = 3.0  # levels, 1.2 dB
_GAIN = 8.0  # levels, 3 dB


class Fingerprint(Sketcher):
    """A sketch is the levels of 16 bands in 24 equal parts of the recording, around its mean, and its duration."""

    def sketch(self, items: Tensor) -> Bytes:
        """(n, W, 64, T) as decoded -> (n, 16 · 24 + 1) uint8."""
        coarse = adaptive_avg_pool2d(items.float(), (_BANDS, items.shape[3]))  # (n, W, 16, T)
        shown = there(items)
        rows = np.empty((len(items), _BANDS * _SLOTS + 1), np.uint8)
        for row in range(len(items)):
            sound = coarse[row].transpose(0, 1)[:, shown[row]]  # (16, frames)
            if not sound.shape[1]:
                sound = torch.zeros((_BANDS, 1))
            slots = adaptive_avg_pool1d(sound[None], _SLOTS)[0]
            levels = (slots - slots.mean() + 128).round().clamp(0, 255)
            rows[row, :-1] = levels.flatten().to(torch.uint8).numpy()
            rows[row, -1] = min(round(_PER_OCTAVE * np.log2(1 + sound.shape[1])), 255)
        return rows

    def places(self, sketches: Bytes) -> Floats:
        """(n, f) -> (n, 16 · 8) float32: three slots at a time, so that what is a slot apart stays near."""
        levels = sketches[:, :-1].reshape(-1, _BANDS, _SLOTS // 3, 3).astype(np.float32)
        found: Floats = levels.mean(axis=3).reshape(len(sketches), -1)
        return found

    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """Root mean square of the levels, laid over each other where they fit best; or the difference of durations,
        where that is larger: (m,) and (m, k) rows of sketches -> (m, k) float32.
        """
        found = np.empty(others.shape, np.float32)
        for start in range(0, len(first), _ROWS):
            part = slice(start, start + _ROWS)
            found[part] = _differences(sketches, first[part], others[part])
        return found

    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """As decoded, in and out: up to 3 dB louder or softer, the first frame dropped or not, and a little noise."""
        n, _, _, length = items.shape
        frames = there(items).sum(2)[:, :, None, None]
        late = (torch.rand((n, 1, 1, 1), generator=generator) < 0.5) & (frames > _SLOTS)
        moved = torch.where(late, items.roll(-1, 3), items)
        inside = torch.arange(length) < frames - late.long()
        gain = _GAIN * (2 * torch.rand((n, 1, 1, 1), generator=generator) - 1)
        noise = torch.randn(items.shape, generator=generator) * _NOISE
        changed = (moved + gain + noise).round().clamp(1, 255).to(torch.uint8)
        return changed * inside

    def appearance(self, sketches: Bytes) -> Bytes:
        return sketches[:, :-1]


def _differences(sketches: Bytes, first: Ints, others: Ints) -> Floats:
    width = _SLOTS - 2 * _REACH
    mine = sketches[first, :-1].reshape(-1, 1, _BANDS, _SLOTS).astype(np.float32)
    theirs = (
        sketches[others, :-1].reshape(*others.shape, _BANDS, _SLOTS)[..., _REACH:-_REACH].astype(np.float32)
    )
    found = np.full(others.shape, np.inf, np.float32)
    for shift in range(2 * _REACH + 1):
        apart = mine[..., shift : shift + width] - theirs
        found = np.minimum(found, np.sqrt(np.square(apart).mean(axis=(2, 3))))
    durations = sketches[first, -1].astype(np.float32)[:, None] - sketches[others, -1]
    result: Floats = np.maximum(found, 2 * np.abs(durations))
    return result

"""Recordings to log-mel spectrograms in a byte a value, and back to what networks take.

A decoded recording is (windows, bands, frames) uint8: levels of 0.4 dB, 1 for -100 dB of full scale and below, 255 for
0 dB; 0 in all bands of a frame that is not there, since the recording or its window has ended.
"""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from torch import Tensor

from service.content.audio import Recording, Samples
from worker.arrays import Bytes, Floats

BANDS = 64
_WINDOW_S = 0.025
_DECIBELS = 100.0
_LEVELS = 254  # beside 0, which is no sound but none at all
_UNIT = 40.0  # levels, 16 dB: about the standard deviation within a recording
ABSENT = -9.0  # of prepared values: a frame that is not there
_LOWEST = -8.0  # of those that are


def levels_of(
    recording: Recording, rate: int, seconds: float, windows: int, hop_s: float, frames: int
) -> Tensor:
    """(windows, BANDS, frames) uint8. A recording that is longer than all windows is heard in as many parts of it,
    spread from its beginning to its end; each is `seconds` long.
    """
    found = torch.zeros((windows, BANDS, frames), dtype=torch.uint8)
    for window, samples in enumerate(parts_of(recording, rate, seconds, windows)):
        levels = _levels(samples, rate, hop_s, frames)
        found[window, :, : levels.shape[1]] = torch.from_numpy(levels)
    return found


def parts_of(recording: Recording, rate: int, seconds: float, windows: int) -> Iterator[Samples]:
    """The samples of each window, at that rate."""
    for start, count in _parts(recording, seconds, windows):
        yield _resampled(recording.read(start, count), recording.rate, rate)


def _parts(recording: Recording, seconds: float, windows: int) -> list[tuple[int, int]]:
    count = max(round(seconds * recording.rate), 1)
    needed = -(-recording.frames // count)
    if needed <= windows:
        return [(start, count) for start in range(0, recording.frames, count)]
    starts = np.linspace(0, recording.frames - count, windows).astype(int).tolist()
    return [(start, count) for start in starts]


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly  # here, as only recordings need it, and it takes half a second

    common = math.gcd(rate, wanted)
    found: Samples = resample_poly(samples, wanted // common, rate // common).astype(np.float32)
    return found


def _levels(samples: Samples, rate: int, hop_s: float, frames: int) -> Bytes:
    """(BANDS, t) uint8, t <= frames and at least 1."""
    hop, width = round(rate * hop_s), round(rate * _WINDOW_S)
    t = min(max(round(len(samples) / hop), 1), frames)
    padded = np.zeros(t * hop + width, np.float32)
    heard = samples[: t * hop]
    padded[width // 2 : width // 2 + len(heard)] = heard
    framed = np.lib.stride_tricks.sliding_window_view(padded, width)[: t * hop : hop]
    filters = _filters(rate)
    spectra = scipy.fft.rfft(framed * _hann(width), n=2 * (filters.shape[0] - 1), axis=1)
    power = (spectra.real**2 + spectra.imag**2) @ filters
    decibels = 10 * np.log10(power * (4 / _hann(width).sum() ** 2) + 1e-12)
    shares = np.clip(1 + decibels / _DECIBELS, 0, 1)
    levels: Bytes = (1 + np.rint(shares * _LEVELS)).astype(np.uint8).T
    return levels


@cache
def _hann(width: int) -> Floats:
    return np.hanning(width).astype(np.float32)


@cache
def _filters(rate: int) -> npt.NDArray[np.float32]:
    """(bins, BANDS): triangles of equal width in mel (O'Shaughnessy 1987), each of the height 1."""
    bins = 2 ** math.ceil(math.log2(2 * rate * _WINDOW_S)) // 2 + 1
    pitches = np.linspace(_mel(20.0), _mel(rate / 2), BANDS + 2)
    corners = 700 * (10 ** (pitches / 2595) - 1)
    at = np.linspace(0, rate / 2, bins)[:, None]
    rising = (at - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - at) / (corners[2:] - corners[1:-1])
    found: npt.NDArray[np.float32] = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return found


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def there(items: Tensor) -> Tensor:
    """(n, W, BANDS, T) as decoded -> (n, W, T) bool: frames that are there."""
    return items[:, :, 0] > 0


def prepared(items: Tensor) -> Tensor:
    """(n, W, BANDS, T) as decoded -> float32, in units of 16 dB above each recording's mean: how loud it was recorded
    is taken out. `ABSENT` where there is no frame.
    """
    shown = (items > 0).float()
    values = items.float()
    mean = (values * shown).sum((1, 2, 3), keepdim=True) / shown.sum((1, 2, 3), keepdim=True).clamp_min(1)
    return torch.where(items > 0, (values - mean) / _UNIT, ABSENT)


def heard(batch: Tensor) -> Tensor:
    """(n, W, BANDS, T) as prepared -> (n, W, T) bool: frames that are there."""
    return batch[:, :, 0] > (ABSENT + _LOWEST) / 2


def kept_apart(values: Tensor) -> Tensor:
    """Values that no change made so low that they would count as absent."""
    return values.clamp_min(_LOWEST)

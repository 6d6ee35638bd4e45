"""Thumbnails: small enough to keep one of every item, exact enough to tell whether two items are the same picture.

A backbone's embeddings cannot tell that: moving an image by one pixel moves its embedding further than the
distance to the nearest other image (docs/decisions/0006). A thumbnail can be laid over another one.

A row is the luminance (t², t <= 32) and the mean of both colour differences (2), all uint8.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from worker.arrays import Floats, Ints

Thumbnails = npt.NDArray[np.uint8]

_SIDE = 32
_REACH = 2  # two copies, each moved by up to one pixel, are up to two apart
_FREQUENCIES = 5
_ROWS = 4_096
# ITU-R BT.601: luminance, blue and red difference of RGB.
_COLOURS = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))
_NOISE = 4.0  # standard deviation, of 255 grey levels


def thumbnails(pixels: Tensor) -> Thumbnails:
    """(n, 3, s, s) uint8 -> (n, t² + 2) uint8."""
    colours = torch.einsum("cr,nrhw->nchw", torch.tensor(_COLOURS), pixels.float())
    small = adaptive_avg_pool2d(colours[:, :1], min(pixels.shape[-1], _SIDE)).flatten(1)
    levels = torch.cat([small, colours[:, 1:].mean(dim=(2, 3)) + 128], dim=1)
    return levels.round().clamp(0, 255).to(torch.uint8).numpy()


def width(image_size: int) -> int:
    """Columns of a thumbnail of images of that side."""
    return min(image_size, _SIDE) ** 2 + 2


def spectra(rows: Thumbnails) -> Floats:
    """(n, t² + 2) -> (n, f) float32: square roots of the magnitudes of low frequencies.

    Moving an image hardly changes them, so moved copies are near each other here. So may be different images:
    the candidates are to be laid over each other.
    """
    side = _side(rows)
    keep = min(_FREQUENCIES, side // 2)
    parts = []
    for start in range(0, len(rows), _ROWS):
        luminance = rows[start : start + _ROWS, :-2].reshape(-1, side, side).astype(np.float32)
        found = np.abs(np.fft.rfft2(luminance))[:, :, : keep + 1]
        found = np.concatenate([found[:, :keep], found[:, -keep:]], axis=1)
        parts.append(np.sqrt(found).reshape(len(found), -1).astype(np.float32))
    return np.concatenate(parts)


def differences(rows: Thumbnails, first: Ints, others: Ints) -> Floats:
    """(m,), (m, k) rows of thumbnails (n, t² + 2) -> (m, k) float32, in grey levels.

    Root mean square over the pixels, the two laid over each other where they fit best, up to two pixels
    apart; or the difference of the mean colours, where that is larger. The outermost pixels do not count.
    """
    found = np.empty(others.shape, np.float32)
    for start in range(0, len(first), _ROWS):
        part = slice(start, start + _ROWS)
        found[part] = _differences(rows, first[part], others[part])
    return found


def _differences(rows: Thumbnails, first: Ints, others: Ints) -> Floats:
    """|a - b|² = |a|² + |b|² - 2 a·b: one product for all the ways to lay `first` over all `others`."""
    side = _side(rows)
    window = side - 2 * _REACH
    mine = rows[first, :-2].reshape(-1, side, side)
    moved = np.lib.stride_tricks.sliding_window_view(mine, (window, window), axis=(1, 2))
    moved = moved.reshape(len(first), -1, window**2).astype(np.float32)
    theirs = rows[others, :-2].reshape(*others.shape, side, side)
    theirs = theirs[:, :, _REACH:-_REACH, _REACH:-_REACH].reshape(*others.shape, -1).astype(np.float32)
    lengths = (moved**2).sum(axis=2)[:, :, None] + (theirs**2).sum(axis=2)[:, None, :]
    squares = (lengths - 2 * moved @ theirs.transpose(0, 2, 1)).min(axis=1) / window**2
    colours = rows[first, -2:].astype(np.float32)[:, None] - rows[others, -2:].astype(np.float32)
    distances: Floats = np.maximum(np.sqrt(np.maximum(squares, 0)), np.abs(colours).max(axis=2))
    return distances


def changed_slightly(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, s, s) uint8, in and out: each image moved by up to one pixel, with a little noise. Still the same
    picture to anybody.
    """
    n, _, side, _ = pixels.shape
    shifts = torch.randint(-1, 2, (2, n, 1), generator=generator)
    rows, columns = (shifts + torch.arange(side)).clamp(0, side - 1)
    image = torch.arange(n)[:, None, None]
    moved = pixels.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    # Alike in all colours: greys stay grey.
    noise = torch.randn((n, 1, side, side), generator=generator) * _NOISE
    return (moved + noise).round().clamp(0, 255).to(torch.uint8)


def _side(rows: Thumbnails) -> int:
    return math.isqrt(rows.shape[1] - 2)

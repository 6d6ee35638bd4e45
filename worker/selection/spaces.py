"""Spaces of nearness: whitened embeddings of length 1, beside the main directions of their appearance.

As embeddings are, a few directions of large variance say who is near whom, whether they tell classes apart or not.
And a network that learned a pretext task has forgotten some of what things look like; their appearance has not. Of the
100 nearest items those of the same class are, on Fashion-MNIST and CIFAR-10 with embeddings of `rotation`: 66 and 28
standardised, 72 and 29 whitened, 75 and 30 with appearance.

Embeddings by pretrained weights are another matter: their large directions are those that tell classes apart. They
come centred and of one length, and are left so; of the 20 nearest 75 and 49 are of the same class whitened, and 76 and
58 as they are, both with appearance.
"""

import numpy as np
import scipy.linalg

from worker.arrays import Bytes, Floats, Halves, Ints
from worker.selection.pool_view import PoolView
from worker.selection.selections import refuse_not_finite

_LEAST_VARIANCE = 3e-3  # of the largest, added to each direction's: what hardly varies is mostly rounding
_SHOWN_LEAST_VARIANCE = 1e-2
_SHOWN_DIRECTIONS = 64  # of appearance
_SHOWN = np.float32(0.7)  # how much they count
_SAME_LENGTH, _NEARLY_ALL = 0.005, 0.99
_FEWEST_DIMENSIONS = 16  # with fewer, lengths may be equal by chance


class WhitenedSpace:
    """Mean, directions and variances are those of a sample: embeddings (m, d), appearance (m, f) or None."""

    def __init__(self, embeddings: Halves | Floats, appearance: Bytes | None) -> None:
        values = embeddings.astype(np.float32)
        self._embeddings: _Centred | _Whitened
        if of_equal_length(values):
            self._embeddings = _Centred(values)
        else:
            self._embeddings = _Whitened(values, _LEAST_VARIANCE, values.shape[1])
        self._appearance = None
        if appearance is not None:
            levels = appearance.astype(np.float32)
            self._appearance = _Whitened(levels, _SHOWN_LEAST_VARIANCE, _SHOWN_DIRECTIONS)

    def of(self, embeddings: Halves | Floats, appearance: Bytes | None) -> Floats:
        """(n, d), (n, f) -> (n, k) float32 of length 1; appearance where the sample had them."""
        places = self.without_appearance(embeddings)
        if self._appearance is None or appearance is None:
            return places
        shown = self._appearance.of(appearance.astype(np.float32))
        return of_length_one(np.concatenate([places, _SHOWN * shown], axis=1))

    def without_appearance(self, embeddings: Halves | Floats) -> Floats:
        """(n, d) -> (n, d) float32 of length 1"""
        return self._embeddings.of(embeddings.astype(np.float32))


class PoolSpace:
    """Whitened space of a pool view. Mean, directions and variances are of the `references`, a random part of it."""

    def __init__(self, pool: PoolView, references: Ints) -> None:
        self._pool = pool
        self._space = WhitenedSpace(*self._read(references))

    def of(self, rows: Ints) -> Floats:
        """(m,) -> (m, k) float32 of length 1. A value that is not finite raises `NotFinite` with its row."""
        return self._space.of(*self._read(rows))

    def _read(self, rows: Ints) -> tuple[Floats, Bytes | None]:
        embeddings = self._pool.embeddings[rows].astype(np.float32)
        refuse_not_finite(rows, embeddings)
        return embeddings, None if self._pool.appearance is None else self._pool.appearance[rows]


class _Centred:
    def __init__(self, sample: Floats) -> None:
        self._mean = sample.mean(axis=0)

    def of(self, inputs: Floats) -> Floats:
        """(n, d) -> (n, d) rows of length 1"""
        return of_length_one(inputs - self._mean)


class _Whitened:
    """The `keep` principal directions of the largest variance, each divided by its standard deviation."""

    def __init__(self, sample: Floats, least: float, keep: int) -> None:
        """sample (m, d); least: of the largest variance, added to all"""
        self._mean = sample.mean(axis=0)
        centered = sample - self._mean
        variances, directions = _largest(centered.T @ centered / len(centered), keep)
        variances = np.maximum(variances, 0) + least * variances[-1] + 1e-12
        self._map = np.asarray(directions / np.sqrt(variances), dtype=np.float32)

    def of(self, inputs: Floats) -> Floats:
        """(n, d) -> (n, keep) rows of length 1"""
        return of_length_one((inputs - self._mean) @ self._map)


def _largest(covariance: Floats, keep: int) -> tuple[Floats, Floats]:
    """(d, d) -> the largest eigenvalues (k,), rising, and their vectors (d, k). A few are found in a third of the time
    of all.
    """
    d = len(covariance)
    if keep >= d:
        values, vectors = np.linalg.eigh(covariance)
    else:
        values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(d - keep, d - 1), driver="evr")
    return values, vectors


def of_length_one(points: Floats) -> Floats:
    """(n, d), 0 where an item is the mean itself"""
    lengths = np.sqrt(np.einsum("nd,nd->n", points, points))
    return np.asarray(points / (lengths + 1e-12)[:, None], dtype=np.float32)


def of_equal_length(points: Floats) -> bool:
    """True if (nearly) all of (n, d) have one length, as float16 tells it: embeddings that are meant to be compared by
    their directions as they are, neither whitened nor standardised.
    """
    if len(points) < 2 or points.shape[1] < _FEWEST_DIMENSIONS:
        return False
    lengths = np.sqrt(np.einsum("nd,nd->n", points, points))
    middle = np.median(lengths)
    return bool(middle > 0 and (np.abs(lengths - middle) < _SAME_LENGTH * middle).mean() > _NEARLY_ALL)

"""Sketches of texts: MinHash, small enough to keep one of every item, exact enough to tell copies.

Broder 1997, "On the resemblance and containment of documents", https://doi.org/10.1109/SEQUEN.1997.666900: the share
of hash functions whose smallest values agree estimates the Jaccard similarity of two sets of shingles. A byte of each
smallest value suffices (Li and König 2010, "b-Bit Minwise Hashing", https://arxiv.org/abs/0910.3349). These few lines
do 100,000 texts in seconds; the library datasketch goes through Python for each text.

A text's shingles are its single tokens and its pairs of neighbours. Longer ones would make a sentence and its copy
with one word changed strangers: a word is part of three triples, and a sentence has few.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Sketcher
from worker.modalities.text.tokens import BUCKETS, FIRST, PADDING, lengths, packed

_Words = npt.NDArray[np.uint32]

_FUNCTIONS = 128
_PLACES = 64
_TEXTS_AT_ONCE = 64  # 128 hash values of each shingle of each text: 4 MB, which caches hold
_ROWS = 4_096
_CHANGED = 0.05  # of the tokens, at least one


class MinHash(Sketcher):
    """A sketch is a byte of each of 128 hash functions.

    Twins that differ in a few words differ by up to 0.43, strangers by 0.85 at the least (1 in 1,000, Subjectivity).
    """

    most_of_strangers = 0.45

    def sketch(self, items: Tensor) -> Bytes:
        """(n, L) ids -> (n, 128) uint8."""
        ids = items.cpu().numpy().astype(np.uint32)
        parts = [
            _sketched(ids[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(ids), _TEXTS_AT_ONCE)
        ]
        return np.concatenate([np.empty((0, _FUNCTIONS), np.uint8), *parts])

    def places(self, sketches: Bytes) -> Floats:
        """(n, 128) -> (n, 64) float32, -1 or 1: a bit of each byte. Of two texts with Jaccard similarity J, about
        (1 - J) / 2 of the bits differ.
        """
        return (sketches[:, :_PLACES] & 1).astype(np.float32) * 2 - 1

    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """1 - the estimated Jaccard similarity: (m,) and (m, k) rows of sketches (n, 128) -> (m, k) float32.

        Bytes of different values agree once in 256 times, which is taken out.
        """
        found = np.empty(others.shape, np.float32)
        for start in range(0, len(first), _ROWS):
            part = slice(start, start + _ROWS)
            differing = sketches[first[part], None] != sketches[others[part]]
            found[part] = differing.mean(axis=2, dtype=np.float32) * (256 / 255)
        return np.minimum(found, 1.0)

    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """(n, L) ids, in and out: every twentieth token, at least one, is dropped or becomes another word. Texts of
        one token stay as they are.
        """
        n, length = items.shape
        tokens = lengths(items)
        order = torch.rand((n, length), generator=generator).masked_fill(items == PADDING, 2.0)
        count = (_CHANGED * tokens).round().clamp_min(1) * (tokens > 1)
        changed = order.argsort(1).argsort(1) < count[:, None]
        replaced = torch.rand((n, length), generator=generator) < 0.5
        others = torch.randint(FIRST, BUCKETS, (n, length), generator=generator).to(items.dtype)
        return packed(
            torch.where(changed & replaced, others, items), (items != PADDING) & (~changed | replaced)
        )


def _sketched(ids: _Words) -> Bytes:
    """(n, L) -> (n, 128)."""
    ids = ids[:, : max(int((ids != PADDING).sum(axis=1).max()), 1)]
    pairs = ids[:, :-1] * np.uint32(BUCKETS) + ids[:, 1:]
    shingles = _mixed(np.concatenate([ids, pairs], axis=1))
    nothing = np.concatenate([ids == PADDING, ids[:, 1:] == PADDING], axis=1)
    smallest = np.empty((len(ids), _FUNCTIONS), np.uint32)
    for function in range(_FUNCTIONS):
        values = shingles * _FACTORS[function] + _SUMMANDS[function]
        values[nothing] = np.iinfo(np.uint32).max
        smallest[:, function] = values.min(axis=1)
    # The smallest values begin with zeros: only mixed again is each byte as likely as another.
    return (_mixed(smallest) >> np.uint32(24)).astype(np.uint8)


def _mixed(values: _Words) -> _Words:
    """The finalizer of MurmurHash3: every bit depends on every bit."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed: _Words = values ^ (values >> np.uint32(16))
    return mixed


_SEEDED = np.random.default_rng(1997)
_FACTORS = _SEEDED.integers(0, 2**31, _FUNCTIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SUMMANDS = _SEEDED.integers(0, 2**32, _FUNCTIONS, dtype=np.uint32)

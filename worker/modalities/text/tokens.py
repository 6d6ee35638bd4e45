"""Texts to token ids, without a vocabulary: a word's id is a hash of it.

So nothing is learned or stored before a pool can be read, a new text never holds an unknown word, and the ids of
a text are the same in every project and process. Words that share an id cannot be told apart; most of them are rare
(Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning", https://arxiv.org/abs/0902.2206).
"""

import unicodedata
from itertools import islice
from zlib import crc32

import torch
from torch import Tensor

from service.content.text import PIECES

PADDING, MASK = 0, 1
FIRST = 2  # the ids of words begin here
BUCKETS = 8_192  # ids, with these two; guessing among more of them takes longer, in proportion


def token_ids(text: str, length: int) -> Tensor:
    """(length,) int32: the ids of a text's first words and punctuation marks, then padding; at least one id."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()
    found = [token_id(piece.group()) for piece in islice(PIECES.finditer(folded), length)]
    ids = torch.full((length,), PADDING, dtype=torch.int32)
    ids[: len(found) or 1] = torch.tensor(found or [token_id("")], dtype=torch.int32)
    return ids


def token_id(piece: str) -> int:
    """A word's id, from its CRC-32: Python's own hash differs from process to process."""
    return FIRST + crc32(piece.encode(errors="surrogatepass")) % (BUCKETS - FIRST)


def lengths(ids: Tensor) -> Tensor:
    """(n, L) ids -> (n,) int64: tokens without padding."""
    return (ids != PADDING).sum(1)


def packed(ids: Tensor, kept: Tensor) -> Tensor:
    """(n, L) ids, and (n, L) bool which of them are kept -> (n, L): those moved to the left, in order, then padding."""
    order = (~kept).to(torch.uint8).argsort(stable=True, dim=1)
    return ids.masked_fill(~kept, PADDING).gather(1, order)

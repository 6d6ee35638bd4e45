"""Texts to token ids, without a vocabulary: a word's id is a hash of it.

So nothing is learned or stored before a pool can be read, a new text never holds an unknown word, and the ids of
a text are the same in every project and process. Words that share an id cannot be told apart; most of them are rare
(Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning", https://arxiv.org/abs/0902.2206).
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from zlib import crc32

import torch
from torch import Tensor

from service.content.text import PIECES

PADDING, MASK = 0, 1
FIRST = 2  # the ids of words begin here
BUCKETS = 8_192  # ids, with these two; guessing among more of them takes longer, in proportion


def token_ids(text: str, length: int, windows: int = 1) -> Tensor:
    """(windows · length,) int32: the ids of a text's words and punctuation marks, then padding; at least one id. Of a
    text with more of them those of its windows, one after the other (`window_starts`).
    """
    found = [token_id(piece.group()) for piece in pieces_read(folded(text), length, windows)]
    ids = torch.full((windows * length,), PADDING, dtype=torch.int32)
    ids[: len(found) or 1] = torch.tensor(found or [token_id("")], dtype=torch.int32)
    return ids


def folded(text: str) -> str:
    """The text as its tokens are cut from it: differences of case, width and composition are none of words."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def pieces_read(text: str, length: int, windows: int) -> Iterator[re.Match[str]]:
    """The words and punctuation marks that are read of a folded text, in their order. They are gone through twice where
    there are more, so that a text of megabytes takes no more memory than itself.
    """
    first = list(islice(PIECES.finditer(text), length * windows + 1))
    if windows == 1 or len(first) <= length * windows:
        yield from first[: length * windows]
        return
    pieces, place = PIECES.finditer(text), 0
    for start in window_starts(sum(1 for _ in PIECES.finditer(text)), length, windows):
        yield from islice(pieces, start - place, start - place + length)
        place = start + length


def piece_ids_of(pieces: Sequence[int], length: int, windows: int) -> Tensor:
    """(windows · length,) int32: of a text's word pieces those that are read, as `token_ids` reads words, then padding;
    a text without any is one of the first piece.
    """
    read = [
        piece
        for start in window_starts(len(pieces), length, windows)
        for piece in pieces[start : start + length]
    ]
    ids = torch.full((windows * length,), PADDING, dtype=torch.int32)
    ids[: len(read) or 1] = FIRST + torch.tensor(read or [0], dtype=torch.int32)
    return ids


def window_starts(tokens: int, length: int, windows: int) -> Sequence[int]:
    """The first token of each window of a text with so many tokens. A text that fits is read to its end; of a longer
    one the windows are spread from its beginning to its end, but for a single one, which is the beginning.
    """
    if windows == 1 or tokens <= windows * length:
        return range(0, min(max(tokens, 1), windows * length), length)
    return [window * (tokens - length) // (windows - 1) for window in range(windows)]


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

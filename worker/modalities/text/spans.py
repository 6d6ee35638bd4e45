"""From tokens back to the text that they were cut from: which characters a token stands for."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from service.content.text import MARKS
from worker.arrays import Ints
from worker.modalities.text.tokens import folded, pieces_read, window_starts

# A character with what is composed with it: marks, vowels and finals of Hangul, the voice of half-width katakana.
_CLUSTER = re.compile(rf".[{MARKS}\u1160-\u11ff\uff9e\uff9f]*", re.DOTALL)


def spans_of(text: str, places: Ints, length: int, windows: int) -> Ints:
    """(k,) places among the tokens that are read of a text, -1 for none -> (k, 2): first character, and the one after
    the last; -1 where there is none, as in a text whose characters cannot be told from those of its folded form.
    """
    found = np.full((len(places), 2), -1)
    wanted = {int(place): row for row, place in enumerate(places) if place >= 0}
    if not wanted:
        return found
    lowered = folded(text)
    told = _origins(text, lowered)
    if told is None:
        return found
    starts, ends = told
    for place, piece in enumerate(pieces_read(lowered, length, windows)):
        if (row := wanted.pop(place, None)) is not None:
            found[row] = starts[piece.start()], ends[piece.end() - 1]
            if not wanted:
                break
    return found


def spans_of_pieces(offsets: Sequence[tuple[int, int]], places: Ints, length: int, windows: int) -> Ints:
    """The same of word pieces: `offsets` are the characters of each of the text's."""
    starts = window_starts(len(offsets), length, windows)
    found = np.full((len(places), 2), -1)
    for row, place in enumerate(places.tolist()):
        window, inside = divmod(place, length)
        if place >= 0 and starts[window] + inside < len(offsets):
            found[row] = offsets[starts[window] + inside]
    return found


def _origins(text: str, lowered: str) -> tuple[Sequence[int], Sequence[int]] | None:
    """For each character of the folded text, from where to where what it comes from stands in the text."""
    if len(text) == len(lowered) and (text.isascii() or unicodedata.is_normalized("NFKC", text)):
        return range(len(text)), range(1, len(text) + 1)
    starts, ends, made = list[int](), list[int](), list[str]()
    for cluster in _CLUSTER.finditer(text):
        made.append(folded(cluster.group()))
        starts += [cluster.start()] * len(made[-1])
        ends += [cluster.end()] * len(made[-1])
    # A Greek sigma at the end of a word is the only letter whose small form asks for its neighbours.
    same = "".join(made).replace("ς", "σ") == lowered.replace("ς", "σ")
    return (starts, ends) if same else None

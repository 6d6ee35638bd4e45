"""Which characters of a text a token stands for, whatever folding did to them."""

import unicodedata

import numpy as np
import pytest

from tests.worker.modalities.text.texts import LIMITS
from worker.modalities.text import Text
from worker.modalities.text.spans import spans_of
from worker.modalities.text.tokens import folded, pieces_read, token_id


def cut(text: str, length: int = 32, windows: int = 1) -> list[str]:
    """The text's tokens, as they stand in it."""
    count = len(list(pieces_read(folded(text), length, windows)))
    return [text[start:end] for start, end in spans_of(text, np.arange(count), length, windows)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Good, good FILM.", ["Good", ",", "good", "FILM", "."]),
        ("Straße, Ärger", ["Straße", ",", "Ärger"]),
        (unicodedata.normalize("NFD", "Ärger à la carte"), ["A\u0308rger", "a\u0300", "la", "carte"]),
        ("ＧＯＯＤ，ｆｉｌｍ", ["ＧＯＯＤ", "，", "ｆｉｌｍ"]),
        ("ﬁn de siècle … ½ İstanbul", ["ﬁn", "de", "siècle", "…", "…", "…", "½", "½", "½", "İstanbul"]),
        ("ΟΔΟΣ ΣΟΦΟΣ…", ["ΟΔΟΣ", "ΣΟΦΟΣ", "…", "…", "…"]),
        ("漢字，🙂", ["漢", "字", "，", "🙂"]),
        (
            unicodedata.normalize("NFD", "한국 말"),
            [unicodedata.normalize("NFD", one) for one in ("한국", "말")],
        ),
        ("ｶﾞｷﾞ", ["ｶﾞ", "ｷﾞ"]),
    ],
)
def test_tokens_stand_where_they_were_cut_from(text: str, tokens: list[str]) -> None:
    assert cut(text) == tokens


def test_tokens_of_spread_windows_stand_where_these_are() -> None:
    text = " ".join(f"W{number}" for number in range(100))
    items, _ = Text(tokens=4, windows=3).decode(text.encode(), LIMITS)

    assert cut(text, 4, 3) == [f"W{start + place}" for start in (0, 48, 96) for place in range(4)]
    assert [token_id(one.lower()) for one in cut(text, 4, 3)] == items.tolist()


def test_nothing_is_marked_where_no_place_is_asked_for() -> None:
    found = Text(tokens=4).spans(b"one two three", LIMITS, np.array([2, -1, 9]))
    assert found.tolist() == [[8, 13], [-1, -1], [-1, -1]]

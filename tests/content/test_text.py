"""Texts of any encoding become strings; all else is refused with a sentence."""

import gzip
import time
import unicodedata

import pytest

from service.content.contract import Limits
from service.content.text import CONTENT, PIECES
from service.errors import BadItem
from tests.content.bombs import most_memory, zip_bomb

LIMITS = Limits(max_pixels=1, max_text_bytes=1_000_000)
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Широкая электрификация южных губерний."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain", "ascii"),
        ("naïve façade", "utf-8"),
        ("naïve façade", "utf-8-sig"),
        ("naïve façade", "utf-16"),
        ("日本語", "utf-16-le"),
        ("日本語", "utf-16-be"),
        ("naïve 🙂", "utf-32"),
        ("café", "latin-1"),
        ("Ünal", "cp1252"),
        ("It costs 5 €, “really”", "cp1252"),
        (RUSSIAN, "utf-8"),
        (RUSSIAN, "cp1251"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。" * 4, "shift_jis"),
        ("🙂🙃🎉", "utf-8"),
        ("שלום עולם", "utf-8"),
        (unicodedata.normalize("NFD", "Ångström"), "utf-8"),
        ("one\r\ntwo\rthree\nfour\u2028five", "utf-8"),
    ],
)
def test_encodings(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    if encoding.endswith(("-le", "-be")):
        data = ("\ufeff" + text).encode(encoding)

    assert CONTENT.text(data, LIMITS) == text


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b" \r\n\t ", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        ("\u200b\u3000".encode(), "empty"),
        (b"a\0b", "not text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not text"),
        ("a\0b".encode("utf-16"), "not text"),
        (b"\xff\xfea", "not text"),
        (bytes(range(1, 256)) * 40, "not text"),
        (b"%PDF-1.7\nstream", "not text"),
        (b"{\\rtf1 hello}", "not text but a document"),
        (zip_bomb(), r"not text but an archive or document \(ZIP\)"),
        (gzip.compress(b"Once upon a time. " * 9, mtime=0), r"not text but an archive or document \(gzip\)"),
        ("naïve".encode("utf-16-le"), "NUL bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"a" * 1_000_001, "1000001 bytes are more than 1000000 allowed"),
    ],
)
def test_what_is_refused(data: bytes, sentence: str) -> None:
    for ask in (CONTENT.inspect, CONTENT.text, lambda data, limits: CONTENT.preview(data, limits, None)):
        with pytest.raises(BadItem, match=sentence):
            ask(data, LIMITS)


def test_facts() -> None:
    assert CONTENT.inspect("It's 3 o'clock, 東京!".encode(), LIMITS) == {
        "characters": 19,
        "words": 7,
        "encoding": "utf-8",
    }
    assert CONTENT.inspect("né".encode("cp1252"), LIMITS)["encoding"] == "cp1252"


def test_a_broken_character_does_not_change_the_encoding() -> None:
    data = ("ж" * 200).encode()[:-1]

    assert CONTENT.text(data, LIMITS) == "ж" * 199 + "\ufffd"


@pytest.mark.parametrize("unit", ["word ", "слово ", "é", "語", "🙂", "a", "\u0301", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
def test_a_megabyte_takes_less_than_a_second_and_little_memory(unit: str, encoding: str) -> None:
    data = (b"x" + unit.encode(encoding, errors="replace") * 1_000_000)[: LIMITS.max_text_bytes]
    begun = time.process_time()
    most = most_memory(lambda: CONTENT.inspect(data, LIMITS))

    assert time.process_time() - begun < 1
    assert most < 30e6


def test_a_preview_is_never_run() -> None:
    page = "<script>alert(1)</script> é"
    preview = CONTENT.preview(page.encode("utf-16"), LIMITS, 64)

    assert preview.media_type == "text/plain; charset=utf-8"
    assert preview.data.decode() == page


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("it's 3.5!", ["it", "'", "s", "3", ".", "5", "!"]),
        ("snake_case", ["snake", "_", "case"]),
        ("東京abc", ["東", "京", "abc"]),
        ("abc東京", ["abc", "東", "京"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        (unicodedata.normalize("NFD", "é!"), [unicodedata.normalize("NFD", "é"), "!"]),
        ("🙂🙂", ["🙂", "🙂"]),
    ],
)
def test_pieces(text: str, pieces: list[str]) -> None:
    assert PIECES.findall(text) == pieces
